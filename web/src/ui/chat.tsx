// One chat: its head, its turns, the composer, and what keeps the three together.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import { deleteChat } from '../api';
import { isRunning, runningVariant, type Attachment, type ChatModel, type OutItem } from '../protocol';
import { toWords } from '../markdown';
import { attempt, characterOf, chatsChanged, client, dropTray, goTo, loadChats, shared, trayOf } from '../store';
import { Composer } from './composer';
import { Icon } from './icons';
import { Outgoing } from './outgoing';
import { Avatar, Confirm, Dots, IconButton } from './parts';
import { useDrop } from './drop';
import { useStage } from './stage';
import { TurnItem } from './turn';

export function ChatView({ id }: { id: string }): JSX.Element {
  const model = client.chat(id);
  const known = shared.chats.state === 'ready' ? shared.chats.value.find((c) => c.chat === id) : undefined;
  const character = model.character ?? characterOf(known?.character);
  const name = character?.name ?? known?.name ?? '';
  const avatar = character?.avatar ?? known?.avatar ?? characterOf(character?.id)?.avatar;
  const tagline = characterOf(character?.id)?.tagline ?? character?.tagline ?? '';

  const [draft, setDraft] = useState(() => drafts.get(id) ?? '');
  const [deleting, setDeleting] = useState<{ turn: string | null } | null>(null);
  const stage = useStage(model);
  const spoken = useSpoken(model, name);
  const tray = trayOf(id);
  const drop = useDrop((files) => tray.add(files));

  useEffect(() => void drafts.set(id, draft), [draft]);
  useEffect(() => {
    document.title = name ? `${name} · Troupe` : 'Troupe';
  }, [name]);

  const running = model.turns.filter(isRunning);
  const stoppable = running.find((t) => t.status?.state === 'writing') ?? running[0];
  const stop = () => stoppable && attempt(client.stop(id, stoppable.turn));

  function onKeyDown(event: KeyboardEvent): void {
    if (event.key !== 'Escape' || event.defaultPrevented || deleting) return;
    if (stoppable) {
      event.preventDefault();
      stop();
    }
  }

  function send(text: string): void {
    stage.follow();
    client.send(id, text.trim() === '' ? '' : text, tray.take());
    setDraft('');
    setTimeout(() => void loadChats(), 1500); // this chat moves to the top of the list
  }

  /** A message that failed goes back to where it was written. */
  function takeBack(item: OutItem): void {
    if (item.text) setDraft(draft ? `${item.text}\n${draft}` : item.text);
    if (item.files.length > 0) tray.putBack(item.files as Attachment<File>[], item.filesGone ?? false);
    document.getElementById('message')?.focus();
  }

  async function removeTurn(turn: string): Promise<void> {
    await client.remove(id, turn);
    document.getElementById('message')?.focus(); // the button that had the focus is gone
  }

  async function removeChat(): Promise<void> {
    await deleteChat(id);
    drafts.delete(id);
    dropTray(id);
    goTo(null);
    client.forget(id);
    chatsChanged(id);
  }

  if (model.gone) {
    return (
      <div class="empty full" role="alert">
        <p class="empty-title">The curtain has come down.</p>
        <p>This chat is not here. It may have been deleted, or it belongs to another visitor.</p>
        <a class="button primary" href="#/">Back to the company</a>
      </div>
    );
  }

  const waiting = model.outbox.filter((o) => !o.twin);
  return (
    <section class="chat" aria-label={name ? `Chat with ${name}` : 'Chat'} onKeyDown={onKeyDown} {...drop.handlers}>
      <div class="chat-head">
        <a href="#/" class="icon-button back" aria-label="Back to the company" title="Back to the company"><Icon name="back" /></a>
        <Avatar src={avatar} name={name} size="m" />
        <div class="chat-title">
          <h1 class="name">{name || ' '}</h1>
          <p>{stoppable ? doing(model) : tagline}</p>
        </div>
        <IconButton icon="bin" label="Delete this chat" onClick={() => setDeleting({ turn: null })} />
      </div>

      <div class="stage" ref={stage.box} onScroll={stage.onScroll} tabIndex={0} aria-label="The conversation" role="region">
        <div class="stage-inner" ref={stage.content}>
          {model.hasOlder && (
            <button type="button" class="link older" onClick={stage.loadOlder}>Earlier in this chat</button>
          )}
          {!model.loaded && <p class="quiet centred"><Dots /> Setting the scene</p>}
          <ol class="turns">
            {model.turns.map((turn) => (
              <TurnItem key={turn.turn} turn={turn} chat={id} name={name} avatar={avatar} onDelete={() => setDeleting({ turn: turn.turn })} />
            ))}
            {waiting.map((item) => (
              <Outgoing key={item.id} item={item} chat={id} onTakeBack={takeBack} />
            ))}
          </ol>
        </div>
      </div>

      <div class="foot">
        {stage.behind && (
          <button type="button" class="pill" onClick={stage.follow}>
            {stage.unread ? 'New messages' : 'To the newest'} <Icon name="down" />
          </button>
        )}
        <Composer name={name} draft={draft} tray={tray} onDraft={setDraft} onSend={send} onStop={stoppable ? stop : null} />
      </div>

      {drop.over && <div class="drop" aria-hidden="true"><p>Let go to attach</p></div>}
      <div class="unseen" aria-live="polite" aria-atomic="true">{spoken}</div>

      {deleting && deleting.turn === null && (
        <Confirm title="Delete this chat?" action="Delete the chat" onConfirm={() => attempt(removeChat())} onClose={() => setDeleting(null)}>
          Everything said in it goes, for good.
        </Confirm>
      )}
      {deleting?.turn && (
        <Confirm title="Delete this turn?" action="Delete" onConfirm={() => attempt(removeTurn(deleting.turn as string))} onClose={() => setDeleting(null)}>
          The message and its replies go; later ones stay.
        </Confirm>
      )}
    </section>
  );
}

/** What was typed and not sent, by chat; in memory only. */
const drafts = new Map<string, string>();

function doing(model: ChatModel): string {
  const turn = model.turns.find(isRunning);
  if (turn?.status?.state === 'writing') return 'is writing…';
  if (turn?.status?.state === 'queued' && turn.status.position > 0) return `is busy; you wait at place ${turn.status.position}`;
  return 'is thinking…';
}

/** The text for the screen reader: a reply, once, when it is whole. */
function useSpoken(model: ChatModel, name: string): string {
  const [spoken, setSpoken] = useState('');
  const before = useRef(new Set<string>());
  useLayoutEffect(() => {
    const now = new Set<string>();
    for (const turn of model.turns) {
      if (isRunning(turn)) now.add(turn.turn);
      else if (before.current.has(turn.turn)) {
        const reply = turn.variants.find((v) => v.variant === turn.chosen) ?? turn.variants[turn.variants.length - 1];
        if (!reply || runningVariant(turn)) continue;
        const words = reply.finish === 'error' ? reply.message ?? '' : toWords(reply.text);
        const stopped = reply.finish === 'stopped' ? ' (stopped)' : '';
        setSpoken(`${name}: ${words}${stopped}`);
        if (document.hidden) document.title = `● ${name} · Troupe`;
      }
    }
    before.current = now;
  }, [model.version]);
  return spoken;
}
