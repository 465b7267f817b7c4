// Small parts that several views use.

import { useEffect, useRef, useState } from 'preact/hooks';
import type { ComponentChildren, JSX } from 'preact';
import { Icon, type IconName } from './icons';

/** A character's picture; its initial where there is none. */
export function Avatar({ src, name, size }: { src?: string | null | undefined; name: string; size: 's' | 'm' | 'l' }): JSX.Element {
  const [broken, setBroken] = useState(false);
  useEffect(() => setBroken(false), [src]);
  // Only the server's own pictures: the page loads nothing from elsewhere.
  const own = src && src.startsWith('/') && !src.startsWith('//') ? src : null;
  return (
    <span class={`avatar avatar-${size}`} aria-hidden="true">
      {own && !broken ? <img src={own} alt="" onError={() => setBroken(true)} /> : <span>{[...name][0] ?? '?'}</span>}
    </span>
  );
}

interface IconButtonProps {
  icon: IconName;
  label: string;
  onClick: (event: JSX.TargetedMouseEvent<HTMLButtonElement>) => void;
  disabled?: boolean;
  class?: string;
}

/** A button with a picture and a name.  Disabled, it keeps the focus: the keyboard must not lose its place. */
export function IconButton({ icon, label, onClick, disabled, class: extra }: IconButtonProps): JSX.Element {
  return (
    <button type="button" class={`icon-button ${extra ?? ''}`} aria-label={label} title={label} aria-disabled={disabled ?? false} onClick={(e) => !disabled && onClick(e)}>
      <Icon name={icon} />
    </button>
  );
}

interface ConfirmProps {
  title: string;
  children: ComponentChildren;
  action: string;
  onConfirm: () => void;
  onClose: () => void;
}

/** A question before something that can't be taken back. */
export function Confirm({ title, children, action, onConfirm, onClose }: ConfirmProps): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="confirm" aria-labelledby="confirm-title" onClose={onClose}
      onClick={(event) => event.target === dialog.current && onClose()}>
      <h2 id="confirm-title">{title}</h2>
      <p>{children}</p>
      <div class="row">
        <button type="button" class="button" onClick={onClose}>Keep it</button>
        <button type="button" class="button danger" onClick={() => { onConfirm(); onClose(); }}>{action}</button>
      </div>
    </dialog>
  );
}

/** Three dots that breathe. */
export function Dots(): JSX.Element {
  return <span class="dots" aria-hidden="true"><i /><i /><i /></span>;
}
