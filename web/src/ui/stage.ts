// Scrolling: at the bottom the view follows what is written; further up it stays where
// the reader is, also when older turns come in above.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { RefObject } from 'preact';
import type { ChatModel } from '../protocol';
import { attempt, client } from '../store';

/** This near to the bottom counts as at the bottom. */
const NEAR_BOTTOM = 60;
/** This near to the top loads older turns. */
const NEAR_TOP = 500;

export interface Stage {
  box: RefObject<HTMLDivElement>;
  content: RefObject<HTMLDivElement>;
  onScroll: () => void;
  loadOlder: () => void;
  /** Go to the bottom and stay there. */
  follow: () => void;
  /** The reader is further up. */
  behind: boolean;
  /** Something came while the reader was further up. */
  unread: boolean;
}

export function useStage(model: ChatModel): Stage {
  const box = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const sticking = useRef(true);
  const last = useRef({ height: 0, first: '', newest: '' });
  const [behind, setBehind] = useState(false);
  const [unread, setUnread] = useState(false);

  function toBottom(): void {
    const el = box.current;
    if (el) el.scrollTop = el.scrollHeight;
  }

  function loadOlder(): void {
    if (model.hasOlder) attempt(client.older(model.chat));
  }

  function onScroll(): void {
    const el = box.current;
    if (!el) return;
    sticking.current = el.scrollHeight - el.scrollTop - el.clientHeight < NEAR_BOTTOM;
    setBehind(!sticking.current);
    if (sticking.current) setUnread(false);
    if (el.scrollTop < NEAR_TOP) loadOlder();
  }

  function follow(): void {
    sticking.current = true;
    setBehind(false);
    setUnread(false);
    toBottom();
    box.current?.parentElement?.querySelector('textarea')?.focus({ preventScroll: true });
  }

  // After each draw: stay at the bottom, or keep what is read in its place.
  useLayoutEffect(() => {
    const el = box.current;
    if (!el) return;
    const first = model.turns[0]?.turn ?? '';
    const newest = model.turns[model.turns.length - 1]?.turn ?? '';
    const was = last.current;
    if (sticking.current) toBottom();
    else if (was.first && first < was.first) el.scrollTop += el.scrollHeight - was.height;
    else if (newest !== was.newest) setUnread(true);
    last.current = { height: el.scrollHeight, first, newest };
  }, [model.version]);

  // The window, the phone's keyboard or a growing composer change the height.
  useEffect(() => {
    const watcher = new ResizeObserver(() => {
      if (sticking.current) toBottom();
      last.current.height = box.current?.scrollHeight ?? 0;
    });
    if (box.current) watcher.observe(box.current);
    if (content.current) watcher.observe(content.current);
    return () => watcher.disconnect();
  }, [model.gone]);

  // A short page that has older turns can't be scrolled: load them.
  useEffect(() => {
    const el = box.current;
    if (el && model.hasOlder && el.scrollHeight <= el.clientHeight) loadOlder();
  }, [model.version]);

  return { box, content, onScroll, loadOlder, follow, behind, unread };
}
