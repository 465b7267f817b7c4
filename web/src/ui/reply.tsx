// A character's reply: its text as it comes, its variants, and what can be done with it.

import { useEffect, useMemo, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import { inWords, type TurnView, type VariantView } from '../protocol';
import { toHtml } from '../markdown';
import { attempt, client, notify } from '../store';
import { Avatar, Dots, IconButton } from './parts';

interface ReplyProps {
  turn: TurnView;
  chat: string;
  name: string;
  avatar: string | null | undefined;
  running: VariantView | undefined;
  busy: boolean;
  onRegenerate: () => void;
}

export function Reply({ turn, chat, name, avatar, running, busy, onRegenerate }: ReplyProps): JSX.Element {
  // While a new variant is written, the reader may leaf back to an older one.
  const [leafed, setLeafed] = useState<number | null>(null);
  useEffect(() => setLeafed(null), [running?.variant]);

  const { variants } = turn;
  const wanted = leafed ?? running?.variant ?? turn.chosen;
  const index = Math.max(0, variants.findIndex((v) => v.variant === wanted));
  const shown = variants[index];
  const writing = shown === undefined || shown.finish === null;
  const greeting = turn.text === null;

  function leaf(by: number): void {
    const target = variants[index + by];
    if (!target) return;
    if (running) setLeafed(target.variant);
    else attempt(client.choose(chat, turn.turn, target.variant));
  }

  function onKeyDown(event: KeyboardEvent): void {
    if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
    event.preventDefault();
    leaf(event.key === 'ArrowLeft' ? -1 : 1);
  }

  return (
    <article class={`reply ${writing ? 'writing' : ''}`} aria-label={name} aria-busy={writing}>
      <Avatar src={avatar} name={name} size="m" />
      <div class="reply-body">
        <p class="reply-name name">{name}</p>
        {shown && shown.text !== '' && <Prose text={shown.text} />}
        {writing && !shown?.text && <Waiting turn={turn} />}
        {shown && !writing && <Ending variant={shown} busy={busy} onRegenerate={onRegenerate} />}
        <div class="actions" role="group" aria-label="This reply">
          {variants.length > 1 && (
            <span class="leaf" role="group" aria-label="Variants of this reply" onKeyDown={onKeyDown}>
              <IconButton icon="previous" label="Previous variant" disabled={index === 0} onClick={() => leaf(-1)} />
              <span class="leaf-count" aria-live="polite"><span class="unseen">Variant </span>{index + 1}/{variants.length}</span>
              <IconButton icon="next" label="Next variant" disabled={index === variants.length - 1} onClick={() => leaf(1)} />
            </span>
          )}
          {shown && !writing && shown.text !== '' && <Copy text={shown.text} />}
          {!greeting && !busy && <IconButton icon="again" label="Regenerate the reply" onClick={onRegenerate} />}
        </div>
      </div>
    </article>
  );
}

/** The text as Markdown; `toHtml` is what makes it safe. */
function Prose({ text }: { text: string }): JSX.Element {
  const html = useMemo(() => toHtml(text), [text]);
  return <div class="prose" dangerouslySetInnerHTML={{ __html: html }} />;
}

function Waiting({ turn }: { turn: TurnView }): JSX.Element {
  const place = turn.status?.state === 'queued' ? turn.status.position : 0;
  return (
    <p class="waiting">
      <Dots /> <span class={place > 0 ? '' : 'unseen'}>{place > 0 ? `Waiting, place ${place}` : 'Thinking'}</span>
    </p>
  );
}

/** How the reply ended, where that needs saying. */
function Ending({ variant, busy, onRegenerate }: { variant: VariantView; busy: boolean; onRegenerate: () => void }): JSX.Element | null {
  if (variant.finish === 'stopped') return <p class="aside">{variant.text ? 'You stopped here.' : 'You stopped this before a word was said.'}</p>;
  if (variant.finish === 'length') return <p class="aside">Cut off at the length limit.</p>;
  if (variant.finish !== 'error') return null;
  return (
    <p class="trouble" role="alert">
      {variant.message ?? inWords(variant.code ?? 'engine_failed')}{' '}
      <button type="button" class="link" disabled={busy} onClick={onRegenerate}>Try again</button>
    </p>
  );
}

function Copy({ text }: { text: string }): JSX.Element {
  const [done, setDone] = useState(false);
  async function copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      notify('The browser did not let the text be copied.');
      return;
    }
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  }
  return <IconButton icon={done ? 'done' : 'copy'} label={done ? 'Copied' : 'Copy the reply'} onClick={() => void copy()} />;
}
