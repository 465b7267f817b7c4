// The one client of the page, and what views share: lists, notices, the route.

import { useEffect, useReducer } from 'preact/hooks';
import { deleteMedia, ensureSession, listCharacters, listChats, uploadMedia } from './api';
import { Client, Tray, TroupeError, describe, type Character, type ChatInfo, type Socket } from './protocol';

/** Loaded, failed (in words), or still under way. */
export type Load<T> = { state: 'loading' } | { state: 'ready'; value: T } | { state: 'failed'; words: string };

export const shared = {
  characters: { state: 'loading' } as Load<Character[]>,
  chats: { state: 'loading' } as Load<ChatInfo[]>,
  notices: [] as { id: number; words: string }[],
};

const listeners = new Set<() => void>();
let drawing = false;

/** Draw again, at most once a frame; a hidden page gets no frames, so a timer goes along. */
export function redraw(): void {
  if (drawing) return;
  drawing = true;
  let done = false;
  const draw = () => {
    if (done) return;
    done = true;
    drawing = false;
    clearTimeout(timer);
    for (const listener of [...listeners]) listener();
  };
  const timer = setTimeout(draw, 120);
  requestAnimationFrame(draw);
}

/** Draw this component whenever something shared has changed. */
export function useShared(): void {
  const [, again] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    const listener = () => again(undefined as never);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
}

function connect(): Socket {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return new WebSocket(`${scheme}//${location.host}/ws`, 'troupe.v1');
}

export const client = new Client({
  connect,
  session: ensureSession,
  onChange: redraw,
  onTrouble: notify,
  onFilesSettled: (files) => files.forEach((f) => f.preview && URL.revokeObjectURL(f.preview)),
});

// --- files that are attached and not sent yet, by chat; in memory only, as drafts are

const trays = new Map<string, Tray<File>>();

export function trayOf(chat: string): Tray<File> {
  let tray = trays.get(chat);
  if (!tray) {
    const carrier = {
      send: uploadMedia,
      remove: deleteMedia,
      preview: (file: File) => URL.createObjectURL(file),
      unpreview: (address: string) => URL.revokeObjectURL(address),
    };
    tray = new Tray<File>(carrier, redraw, notify);
    trays.set(chat, tray);
  }
  return tray;
}

/** The network is back. */
export function hurryTrays(): void {
  for (const tray of trays.values()) tray.hurry();
}

/** A chat was deleted: what was attached in it goes, too. */
export function dropTray(chat: string): void {
  trays.get(chat)?.clear();
  trays.delete(chat);
}

let noticeId = 0;

/** Say something for a few seconds. */
export function notify(words: string): void {
  if (shared.notices.some((n) => n.words === words)) return;
  const id = ++noticeId;
  shared.notices = [...shared.notices.slice(-2), { id, words }];
  setTimeout(() => dismiss(id), 8000);
  redraw();
}

export function dismiss(id: number): void {
  shared.notices = shared.notices.filter((n) => n.id !== id);
  redraw();
}

/** Carry out a wish; say so if it fails. */
export function attempt(wish: Promise<unknown>): void {
  wish.catch((error) => notify(describe(error)));
}

export async function loadCharacters(): Promise<void> {
  shared.characters = await load(listCharacters, shared.characters);
  redraw();
}

export async function loadChats(): Promise<void> {
  shared.chats = await load(listChats, shared.chats);
  redraw();
}

async function load<T>(from: () => Promise<T>, before: Load<T>): Promise<Load<T>> {
  try {
    return { state: 'ready', value: await from() };
  } catch (error) {
    if (before.state === 'ready' && error instanceof TroupeError) return before; // an old list beats none
    return { state: 'failed', words: describe(error) };
  }
}

export function characterOf(id: string | undefined): Character | undefined {
  return shared.characters.state === 'ready' ? shared.characters.value.find((c) => c.id === id) : undefined;
}

// --- other tabs: the lists follow at once ---------------------------------------

const tabs = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel('troupe');

/** Tell the other tabs that the list of chats has changed. */
export function chatsChanged(deleted?: string): void {
  void loadChats();
  tabs?.postMessage({ deleted });
}

tabs?.addEventListener('message', (event) => {
  const deleted = event.data?.deleted;
  if (typeof deleted === 'string') {
    client.chat(deleted).gone = true;
    dropTray(deleted);
    if (client.active !== deleted) client.forget(deleted);
  }
  void loadChats();
});

// --- the route: #/ or #/chat/ID ------------------------------------------------

export function currentChat(): string | null {
  return /^#\/chat\/([0-9a-fA-F-]{36})$/.exec(location.hash)?.[1] ?? null;
}

export function goTo(chat: string | null): void {
  location.hash = chat === null ? '#/' : `#/chat/${chat}`;
}
