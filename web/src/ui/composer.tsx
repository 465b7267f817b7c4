// Where a message is written.  Enter sends, Shift+Enter begins a line, Esc stops a reply.

import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import type { JSX } from 'preact';
import { ACCEPTED, TEXT_MAX, charactersLeft, type Tray } from '../protocol';
import { Icon } from './icons';
import { IconButton } from './parts';
import { TrayList } from './tray';

interface ComposerProps {
  name: string;
  draft: string;
  tray: Tray<File>;
  onDraft: (text: string) => void;
  onSend: (text: string) => void;
  /** Stops the reply under way; null: there is none. */
  onStop: (() => void) | null;
}

/** The counter shows when this many are left. */
const COUNT_FROM = 500;

export function Composer({ name, draft, tray, onDraft, onSend, onStop }: ComposerProps): JSX.Element {
  const field = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  // Counting code points of every keystroke is needed near the limit only.
  const left = draft.length > TEXT_MAX - COUNT_FROM ? charactersLeft(draft) : TEXT_MAX;
  const empty = draft.trim() === '' && tray.items.length === 0;
  const { hindrance } = tray;
  const tooLong = left < 0;

  useEffect(() => {
    // A phone's keyboard comes up when the person asks for it.
    if (matchMedia('(pointer: fine)').matches) field.current?.focus();
  }, []);
  useLayoutEffect(() => growWithText(field.current), [draft]);

  function send(): void {
    if (empty || tooLong || hindrance) return;
    onSend(draft);
    field.current?.focus();
  }

  function onPicked(input: HTMLInputElement): void {
    tray.add([...(input.files ?? [])]);
    input.value = ''; // the same file may be chosen again
    field.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent): void {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  }

  return (
    <form class={`composer ${tooLong ? 'too-long' : ''}`} onSubmit={(e) => { e.preventDefault(); send(); }}>
      <TrayList tray={tray} />
      <IconButton class="attach" icon="clip" label="Attach pictures, sound or video" onClick={() => picker.current?.click()} />
      <input ref={picker} type="file" class="picker" multiple accept={ACCEPTED} tabIndex={-1} aria-hidden="true" onChange={(e) => onPicked(e.currentTarget)} />
      <label class="unseen" for="message">{name ? `Message to ${name}` : 'Message'}</label>
      <textarea id="message" ref={field} rows={1} value={draft} placeholder={name ? `Say something to ${name}` : 'Say something'}
        enterkeyhint="send" aria-describedby="composer-hint" aria-invalid={tooLong}
        onInput={(e) => onDraft(e.currentTarget.value)} onKeyDown={onKeyDown} />
      {onStop && (
        <button type="button" class="round stop" aria-label="Stop the reply" title="Stop the reply (Esc)" onClick={onStop}><Icon name="stop" /></button>
      )}
      {(!onStop || !empty) && (
        <button type="submit" class="round send" aria-label="Send" title="Send (Enter)" disabled={empty || tooLong || hindrance !== ''}><Icon name="send" /></button>
      )}
      <p class="hint" id="composer-hint">
        {left <= COUNT_FROM
          ? <span class="count" role="status">{tooLong ? `${-left} characters too many; a message may have ${TEXT_MAX.toLocaleString('en')}` : `${left} characters left`}</span>
          : hindrance ? <span class="hindrance" role="status">{hindrance}</span>
          : <span class="keys"><kbd>Enter</kbd> sends · <kbd>Shift</kbd>+<kbd>Enter</kbd> new line · <kbd>Esc</kbd> stops</span>}
      </p>
    </form>
  );
}

/** As high as its text; the style sheet sets the most. */
export function growWithText(field: HTMLTextAreaElement | null): void {
  if (!field) return;
  field.style.height = 'auto';
  field.style.height = `${field.scrollHeight}px`;
}
