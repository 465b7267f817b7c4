// One turn: what the user said, and the character's reply in its variants.

import { memo } from './memo';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import { charactersLeft, isRunning, runningVariant, type TurnView } from '../protocol';
import { attempt, client } from '../store';
import { growWithText } from './composer';
import { Media } from './media';
import { IconButton } from './parts';
import { Reply } from './reply';

interface TurnProps {
  turn: TurnView;
  chat: string;
  name: string;
  avatar: string | null | undefined;
  onDelete: () => void;
}

function TurnBody({ turn, chat, name, avatar, onDelete }: TurnProps): JSX.Element {
  const [editing, setEditing] = useState(false);
  const [edited, setEdited] = useState(false);
  const actions = useRef<HTMLDivElement>(null);
  const was = useRef(false);
  // When the editor closes, the focus goes back to the button that opened it.
  useEffect(() => {
    if (was.current && !editing) actions.current?.querySelector('button')?.focus();
    was.current = editing;
  }, [editing]);
  const media = turn.media ?? [];
  const running = runningVariant(turn);
  const busy = isRunning(turn);

  function save(text: string): void {
    setEditing(false);
    if (text === turn.text) return;
    attempt(client.edit(chat, turn.turn, text).then(() => setEdited(true)));
  }

  function regenerate(): void {
    setEdited(false);
    attempt(client.regenerate(chat, turn.turn));
  }

  return (
    <li class="turn" data-turn={turn.turn}>
      {turn.text !== null && (
        <article class="mine" aria-label="You">
          {media.length > 0 && <Media ids={media} types={turn.media_types ?? []} />}
          {editing ? (
            <Editor text={turn.text} mayBeEmpty={media.length > 0} onSave={save} onCancel={() => setEditing(false)} />
          ) : (
            <>
              {turn.text && <div class="bubble">{turn.text}</div>}
              <div class="actions" role="group" aria-label="Your message" ref={actions}>
                <IconButton icon="edit" label="Edit your message" onClick={() => setEditing(true)} />
                <IconButton icon="bin" label="Delete this turn" onClick={onDelete} />
              </div>
            </>
          )}
          {edited && (
            <p class="aside" role="status">
              Edited. It counts for later replies.{' '}
              <button type="button" class="link" disabled={busy} onClick={regenerate}>Have this one answered anew</button>
            </p>
          )}
        </article>
      )}
      {(turn.variants.length > 0 || busy) && (
        <Reply turn={turn} chat={chat} name={name} avatar={avatar} running={running} busy={busy} onRegenerate={regenerate} />
      )}
    </li>
  );
}

/** Turns that did not change are not drawn again while another is being written. */
export const TurnItem = memo(TurnBody, (a, b) => a.turn === b.turn && a.name === b.name && a.avatar === b.avatar);

interface EditorProps {
  text: string;
  /** Something else is left of the message. */
  mayBeEmpty: boolean;
  onSave: (text: string) => void;
  onCancel: () => void;
}

function Editor({ text, mayBeEmpty, onSave, onCancel }: EditorProps): JSX.Element {
  const [draft, setDraft] = useState(text);
  const field = useRef<HTMLTextAreaElement>(null);
  const left = charactersLeft(draft);
  const ready = (mayBeEmpty || draft.trim() !== '') && left >= 0;
  // Before anything can be typed: later it would move the caret under the writer's hands.
  useLayoutEffect(() => {
    field.current?.focus();
    field.current?.setSelectionRange(text.length, text.length);
  }, []);
  useEffect(() => growWithText(field.current), [draft]);

  function onKeyDown(event: KeyboardEvent): void {
    if (event.key === 'Escape') {
      event.preventDefault();
      onCancel();
    } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (ready) onSave(draft);
    }
  }

  return (
    <div class="editor">
      <textarea ref={field} value={draft} aria-label="Edit your message" rows={1} onInput={(e) => setDraft(e.currentTarget.value)} onKeyDown={onKeyDown} />
      {left < 0 && <p class="trouble">{-left} characters too many</p>}
      <div class="row end">
        <button type="button" class="button" onClick={onCancel}>Cancel</button>
        <button type="button" class="button primary" disabled={!ready} onClick={() => onSave(draft)}>Save</button>
      </div>
    </div>
  );
}
