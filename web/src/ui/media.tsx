// The files of a turn: pictures that open, sound and video that play.
//
// Each has its place and its size before it is loaded, so that nothing that is read moves.

import { useEffect, useRef, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import { mediaAddress, mediaIsThere } from '../api';
import { kindOf, type Kind } from '../protocol';
import { Icon } from './icons';
import { memo } from './memo';
import { IconButton } from './parts';

const nouns: Record<Kind, string> = { image: 'Picture', audio: 'Sound', video: 'Video', other: 'File' };

interface MediaProps {
  ids: string[];
  types: string[];
}

function MediaBody({ ids, types }: MediaProps): JSX.Element {
  return (
    <ul class={`media ${ids.length === 1 ? 'single' : ''}`} aria-label="Sent with it">
      {ids.map((id, i) => {
        const kind = kindOf(types[i]);
        const name = ids.length === 1 ? nouns[kind] : `${nouns[kind]} ${i + 1} of ${ids.length}`;
        return <li key={id} class={`medium ${kind}`}><Medium id={id} kind={kind} name={name} /></li>;
      })}
    </ul>
  );
}

/** A list of the same files is not drawn again: a player must not lose its place. */
export const Media = memo(MediaBody, (a, b) => a.ids.join() === b.ids.join() && a.types.join() === b.types.join());

function Medium({ id, kind, name }: { id: string; kind: Kind; name: string }): JSX.Element {
  const [trouble, setTrouble] = useState<'none' | 'gone' | 'unreadable' | 'lost'>('none');
  const src = mediaAddress(id);
  const noun = name.toLowerCase();

  /** An element tells only that it failed: ask why. */
  async function onError(): Promise<void> {
    try {
      setTrouble((await mediaIsThere(id)) ? 'unreadable' : 'gone');
    } catch {
      setTrouble('lost');
    }
  }

  if (trouble === 'gone') return <p class="medium-trouble" role="status">{name}: no longer here. It was deleted.</p>;
  if (trouble === 'lost') {
    return (
      <p class="medium-trouble" role="status">
        {name}: it could not be loaded. <button type="button" class="link" aria-label={`Load ${noun} again`} onClick={() => setTrouble('none')}>Try again</button>
      </p>
    );
  }
  if (trouble === 'unreadable' || kind === 'other') {
    return (
      <p class="medium-trouble">
        {kind === 'other' ? '' : `${name}: your browser can’t show it. `}<a href={src} download>Save {noun}</a>
      </p>
    );
  }
  if (kind === 'image') return <Picture src={src} name={name} onError={onError} />;
  if (kind === 'audio') return <audio controls preload="metadata" src={src} aria-label={name} onError={onError} />;
  return <video controls preload="metadata" playsInline src={src} aria-label={name} onError={onError} />;
}

function Picture({ src, name, onError }: { src: string; name: string; onError: () => void }): JSX.Element {
  const [open, setOpen] = useState(false);
  const [small, setSmall] = useState(false);
  const button = useRef<HTMLButtonElement>(null);

  /** One that is smaller than its place is not blown up. */
  function onLoad(event: JSX.TargetedEvent<HTMLImageElement>): void {
    const img = event.currentTarget;
    setSmall(img.naturalWidth < img.clientWidth && img.naturalHeight < img.clientHeight);
  }

  return (
    <>
      <button type="button" class="picture" ref={button} aria-label={`${name}: show all of it`} onClick={() => setOpen(true)}>
        <img class={small ? 'small' : ''} src={src} alt={name} loading="lazy" decoding="async" onLoad={onLoad} onError={onError} />
      </button>
      {open && <Viewer src={src} name={name} onClose={() => { setOpen(false); button.current?.focus(); }} />}
    </>
  );
}

/** A picture by itself, as large as fits.  Esc, a click or the button closes it. */
function Viewer({ src, name, onClose }: { src: string; name: string; onClose: () => void }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="viewer" aria-label={name} onClose={onClose} onClick={(e) => !(e.target as Element).closest('a, button') && dialog.current?.close()}
      onKeyDown={(e) => e.stopPropagation()}>
      <img src={src} alt={name} />
      <div class="viewer-head">
        <a class="icon-button" href={src} download aria-label={`Save ${name.toLowerCase()}`} title={`Save ${name.toLowerCase()}`}><Icon name="save" /></a>
        <IconButton icon="close" label="Close" onClick={() => dialog.current?.close()} />
      </div>
    </dialog>
  );
}
