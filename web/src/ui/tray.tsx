// The files of the message that is being written: a chip each, above the composer.

import { useEffect, useRef, useState } from 'preact/hooks';
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
      {tray.items.map((item) => <Chip key={item.key} item={item} onAgain={() => tray.again(item.key)} onRemove={(button) => remove(button, item.key)} />)}
    </ul>
  );
}

interface ChipProps {
  item: Attachment;
  onAgain: () => void;
  onRemove: (button: Element) => void;
}

function Chip({ item, onAgain, onRemove }: ChipProps): JSX.Element {
  const place = useRef<HTMLLIElement>(null);
  const failed = item.state === 'failed';
  // Where the tray scrolls, the new one and the one in trouble are the ones to see.
  useEffect(() => place.current?.scrollIntoView({ block: 'nearest' }), [failed]);
  return (
    <li class={`chip ${item.state}`} ref={place}>
      <Thumb item={item} />
      <span class="chip-words">
        <span class="chip-name" title={item.name}>{item.name}</span>
        <Doing item={item} />
      </span>
      {failed && <IconButton icon="again" label={`Try ${item.name} again`} onClick={onAgain} />}
      <IconButton class="chip-remove" icon="close" label={`Remove ${item.name}`} onClick={(e) => onRemove(e.currentTarget)} />
    </li>
  );
}

export function Thumb({ item }: { item: Attachment }): JSX.Element {
  const [broken, setBroken] = useState(false);
  return (
    <span class="thumb" aria-hidden="true">
      {item.preview && !broken ? <img src={item.preview} alt="" onError={() => setBroken(true)} /> : <Icon name={item.kind === 'other' ? 'file' : item.kind} />}
    </span>
  );
}

function Doing({ item }: { item: Attachment }): JSX.Element {
  if (item.state === 'failed') return <span class="chip-note trouble" role="alert">{item.note}</span>;
  if (item.state === 'waiting') return <span class="chip-note" role="status">{item.note}</span>;
  if (item.state === 'stored') return <span class="chip-note">{sizeInWords(item.size)}</span>;
  return <progress class="chip-progress" max={1} value={item.share} aria-label={`Sending ${item.name}`} />;
}
