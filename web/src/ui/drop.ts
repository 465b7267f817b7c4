// Files that are dropped or pasted into a chat.

import { useRef, useState } from 'preact/hooks';

export interface Drop {
  /** A file is held over the chat. */
  over: boolean;
  handlers: Record<'onDragEnter' | 'onDragOver' | 'onDragLeave' | 'onDrop', (event: DragEvent) => void> & {
    onPaste: (event: ClipboardEvent) => void;
  };
}

const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false;

export function useDrop(onFiles: (files: File[]) => void): Drop {
  const [over, setOver] = useState(false);
  const depth = useRef(0); // elements entered and not left

  function move(event: DragEvent, by: number): void {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth.current = Math.max(0, depth.current + by);
    setOver(depth.current > 0);
  }

  function onDrop(event: DragEvent): void {
    if (!hasFiles(event) || !event.dataTransfer) return;
    event.preventDefault();
    depth.current = 0;
    setOver(false);
    const entries = [...event.dataTransfer.items].filter((i) => i.kind === 'file');
    // A folder looks like a file until it is read.
    onFiles(entries.filter((i) => !i.webkitGetAsEntry?.()?.isDirectory).flatMap((i) => i.getAsFile() ?? []));
  }

  function onPaste(event: ClipboardEvent): void {
    const files = [...(event.clipboardData?.files ?? [])];
    // An office program puts a picture of the text beside the text: the text is meant.
    if (files.length === 0 || event.clipboardData?.types.includes('text/plain')) return;
    event.preventDefault();
    onFiles(files);
  }

  return {
    over,
    handlers: { onDragEnter: (e) => move(e, 1), onDragOver: (e) => move(e, 0), onDragLeave: (e) => move(e, -1), onDrop, onPaste },
  };
}
