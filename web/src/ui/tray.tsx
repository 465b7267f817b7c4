// The files of the message that is being written: a chip each, above the composer.

import type { JSX } from 'preact';
import { sizeInWords, type Attachment, type Tray } from '../protocol';
import { Icon } from './icons';
import { IconButton } from './parts';

export function TrayList({ tray }: { tray: Tray<File> }): JSX.Element | null {
  if (tray.items.length === 0) return null;

  function remove(button: Element, key: string): void {
    const chips = [...(button.closest('.tray')?.children ?? [])];
    const at = tray.items.findIndex((i) => i.key === key);
    const neighbour = chips[at + 1] ?? chips[at - 1];
    const next = neighbour?.querySelector<HTMLElement>('.chip-remove') ?? document.getElementById('message');
    tray.remove(key);
    next?.focus(); // the button that had the focus is gone
  }

  return (
    <ul class="tray" aria-label="Attached to your message">
      {tray.items.map((item) => (
        <li key={item.key} class={`chip ${item.state}`}>
          <Thumb item={item} />
          <span class="chip-words">
            <span class="chip-name" title={item.name}>{item.name}</span>
            <Doing item={item} />
          </span>
          {item.state === 'failed' && <IconButton icon="again" label={`Try ${item.name} again`} onClick={() => tray.again(item.key)} />}
          <IconButton class="chip-remove" icon="close" label={`Remove ${item.name}`} onClick={(e) => remove(e.currentTarget, item.key)} />
        </li>
      ))}
    </ul>
  );
}

export function Thumb({ item }: { item: Attachment }): JSX.Element {
  return (
    <span class="thumb" aria-hidden="true">
      {item.preview ? <img src={item.preview} alt="" /> : <Icon name={item.kind === 'other' ? 'file' : item.kind} />}
    </span>
  );
}

function Doing({ item }: { item: Attachment }): JSX.Element {
  if (item.state === 'failed') return <span class="chip-note trouble" role="alert">{item.note}</span>;
  if (item.state === 'waiting') return <span class="chip-note" role="status">{item.note}</span>;
  if (item.state === 'stored') return <span class="chip-note">{sizeInWords(item.size)}</span>;
  return <progress class="chip-progress" max={1} value={item.share} aria-label={`Sending ${item.name}`} />;
}
