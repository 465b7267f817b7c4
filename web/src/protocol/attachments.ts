// The files of a message that is being written: on their way to the server, there, or refused.
//
//   queued  -> sending   its turn has come: two at a time
//   sending -> stored    the server has it, and gave it an id
//   sending -> waiting   a refusal that passes (busy, too fast, no connection): again by itself, later
//   sending -> failed    any other; or too many that pass
//   waiting -> queued    the pause is over, or the network is back
//   failed  -> queued    `again`
//   any     -> (gone)    `remove`: the way there is cut, what is stored there goes
//
// No DOM in here: how a file travels is handed in.  Held in memory only, as what is typed is.

import { TroupeError, describe, duration } from './errors';
import { newId } from './ids';

/** What is used of a browser's File. */
export interface Source {
  readonly name: string;
  readonly size: number;
  readonly type: string;
}

/** The server's answer to a file. */
export interface Stored {
  media: string;
  type: string;
  bytes: number;
}

/** How files travel. */
export interface Carrier<F extends Source = Source> {
  /** Rejects with a TroupeError; `abort` makes it reject, too. */
  send(file: F, onProgress: (share: number) => void): { done: Promise<Stored>; abort: () => void };
  /** Have a stored file forgotten. */
  remove(media: string): Promise<unknown>;
  /** An address to show the picture by, before it is there; null: it has none. */
  preview?(file: F): string | null;
  unpreview?(address: string): void;
}

export type Kind = 'image' | 'audio' | 'video' | 'other';

export interface Attachment<F extends Source = Source> {
  key: string;
  file: F;
  name: string;
  size: number;
  kind: Kind;
  state: 'queued' | 'sending' | 'waiting' | 'stored' | 'failed';
  /** 0 to 1, of a file on its way. */
  share: number;
  /** Its id and its type, once it is stored. */
  media: string;
  type: string;
  /** Why it waits or has failed, in words. */
  note: string;
  preview: string | null;
}

/** Files that one message takes. */
export const MEDIA_MAX = 8;
/** What the server tells by content; a browser's names for it. */
export const ACCEPTED = 'image/png,image/jpeg,image/gif,image/webp,audio/*,video/mp4,video/webm,video/ogg,.mp3,.ogg,.oga,.opus,.ogv,.wav,.flac,.m4a,.mp4,.webm,.weba';
/** The server takes four of a user; another tab wants some, too. */
const AT_ONCE = 2;
/** Refusals that pass, one after the other, before a file has failed. */
const TRIES = 5;
const PAUSE_MS = 2000;
const passing = new Set(['rate_limited', 'overloaded', 'lost', 'timeout', 'offline']);

export class Tray<F extends Source = Source> {
  items: Attachment<F>[] = [];
  private running = new Map<string, () => void>();
  private timers = new Map<string, ReturnType<typeof setTimeout>>();
  private tries = new Map<string, number>();

  constructor(
    private readonly carrier: Carrier<F>,
    /** Something changed: draw again. */
    private readonly onChange: () => void,
    /** A thing to say that belongs to no file of the tray. */
    private readonly onTrouble: (words: string) => void = () => {},
  ) {}

  /** Take files on; what is clearly none of ours, and what is over the limit, is said and left out. */
  add(files: Iterable<F>): void {
    const taken: Attachment<F>[] = [];
    let over = 0;
    for (const file of files) {
      if (kindOf(file.type) === 'other' && file.type !== '') this.onTrouble(`${file.name}: ${WHAT_IS_TAKEN}`);
      else if (file.size === 0) this.onTrouble(`${file.name} is empty.`);
      else if (this.items.length + taken.length >= MEDIA_MAX) over++;
      else taken.push(this.begin(file));
    }
    if (over > 0) this.onTrouble(leftOut(over));
    if (taken.length === 0) return;
    this.items = [...this.items, ...taken];
    this.onChange();
    this.pump();
  }

  /** Take one out; stored already, the server forgets it. */
  remove(key: string): void {
    const item = this.find(key);
    if (!item) return;
    this.items = this.items.filter((i) => i !== item);
    this.drop(item);
    this.onChange();
    this.pump();
  }

  private drop(item: Attachment<F>): void {
    this.halt(item.key);
    this.tries.delete(item.key);
    if (item.media) this.carrier.remove(item.media).catch(() => {}); // unnamed, it goes by itself in a day
    this.release([item]);
  }

  /** Try one that failed once more. */
  again(key: string): void {
    this.tries.delete(key);
    this.queue(key);
  }

  /** The network is back: don't wait out the pauses that were for it. */
  hurry(): void {
    for (const item of this.items) if (item.state === 'waiting' && item.note === OFFLINE) this.queue(item.key);
  }

  /** All of them, for a message: they are the message's from now on. */
  take(): Attachment<F>[] {
    const items = this.items;
    this.items = [];
    this.onChange();
    return items;
  }

  /** A message was taken back; `anew`: the server no longer has its files. */
  putBack(items: Attachment<F>[], anew: boolean): void {
    const fresh = items.map((i) => (anew ? { ...i, media: '', type: '', state: 'queued' as const, share: 0, note: '' } : i));
    const all = [...fresh, ...this.items];
    // What was attached meanwhile and is over the limit now goes as if it was taken out, and is told.
    for (const item of all.slice(MEDIA_MAX)) this.drop(item);
    this.items = all.slice(0, MEDIA_MAX);
    const over = all.length - this.items.length;
    if (over > 0) this.onTrouble(leftOut(over));
    this.onChange();
    this.pump();
  }

  /** Their pictures are shown from the server now, or not at all. */
  release(items: Attachment<F>[]): void {
    for (const item of items) if (item.preview) this.carrier.unpreview?.(item.preview);
  }

  /** All of it goes. */
  clear(): void {
    for (const item of [...this.items]) this.remove(item.key);
  }

  /** Why the message can't go out yet, in words; '' if nothing of this is in its way. */
  get hindrance(): string {
    const failed = this.items.filter((i) => i.state === 'failed').length;
    const coming = this.items.filter((i) => i.state !== 'failed' && i.state !== 'stored').length;
    if (failed > 0) return failed === 1 ? 'One file did not get through: try again, or remove it.' : `${failed} files did not get through: try again, or remove them.`;
    if (coming > 0) return `${coming === 1 ? 'A file is' : `${coming} files are`} on the way; the message can go out after that.`;
    return '';
  }

  private find(key: string): Attachment<F> | undefined {
    return this.items.find((i) => i.key === key);
  }

  private begin(file: F): Attachment<F> {
    const kind = kindOf(file.type);
    return {
      key: newId(), file, name: file.name || 'a picture', size: file.size, kind, state: 'queued', share: 0, media: '', type: '', note: '',
      preview: kind === 'image' ? this.carrier.preview?.(file) ?? null : null,
    };
  }

  private change(key: string, change: Partial<Attachment<F>>): void {
    this.items = this.items.map((i) => (i.key === key ? { ...i, ...change } : i));
    this.onChange();
  }

  private queue(key: string): void {
    this.halt(key);
    this.change(key, { state: 'queued', note: '', share: 0 });
    this.pump();
  }

  private halt(key: string): void {
    clearTimeout(this.timers.get(key));
    this.timers.delete(key);
    this.running.get(key)?.();
    this.running.delete(key);
  }

  private pump(): void {
    for (const item of this.items) {
      if (this.running.size >= AT_ONCE) return;
      if (item.state === 'queued') void this.send(item);
    }
  }

  private async send(item: Attachment<F>): Promise<void> {
    const { key } = item;
    const way = this.carrier.send(item.file, (share) => {
      if (this.running.get(key) === way.abort) this.change(key, { share });
    });
    this.running.set(key, way.abort);
    this.change(key, { state: 'sending', share: 0, note: '' });
    let stored: Stored | null = null;
    let error: unknown = null;
    try {
      stored = await way.done;
    } catch (e) {
      error = e;
    }
    if (this.running.get(key) !== way.abort) {
      // Removed meanwhile: the server may have been faster.
      if (stored) this.carrier.remove(stored.media).catch(() => {});
      return;
    }
    this.running.delete(key);
    if (stored) this.change(key, { state: 'stored', share: 1, media: stored.media, type: stored.type, kind: kindOf(stored.type), size: stored.bytes });
    else this.refused(key, error);
    this.pump();
  }

  private refused(key: string, error: unknown): void {
    const known = error instanceof TroupeError ? error : new TroupeError('internal', '');
    const tries = (this.tries.get(key) ?? 0) + 1;
    if (!passing.has(known.code) || tries > TRIES) {
      this.tries.delete(key);
      this.change(key, { state: 'failed', note: whyNot(known) });
      return;
    }
    // A wait that the server asks for is no failure of the file.
    if (known.retryAfterMs === 0) this.tries.set(key, tries);
    if (known.code === 'offline') {
      this.change(key, { state: 'waiting', note: OFFLINE, share: 0 });
      return; // `hurry` goes on with it
    }
    const wait = known.retryAfterMs || PAUSE_MS * 2 ** (tries - 1);
    this.change(key, { state: 'waiting', note: `${whyNot(known)} It goes on by itself in ${duration(wait)}.`, share: 0 });
    this.timers.set(key, setTimeout(() => this.queue(key), wait));
  }
}

/** Files over the limit, in words. */
const leftOut = (over: number): string => `A message takes ${MEDIA_MAX} files at most; ${over === 1 ? 'one was' : `${over} were`} left out.`;
const OFFLINE = 'You are offline. It goes on when you are back.';
const WHAT_IS_TAKEN = 'only pictures, sound and video can be sent.';

/** Why a file was not taken, for a person. */
function whyNot(error: TroupeError): string {
  if (error.code === 'rate_limited') return 'Too many files in a short time.';
  if (error.code === 'overloaded') return 'The server has no room just now.';
  if (error.code === 'lost' || error.code === 'timeout') return 'The connection was lost on the way.';
  if (error.code === 'too_large' && !error.message) return 'The file is too large.';
  const message = error.message.replace(/^body: /, '');
  return describe(new TroupeError(error.code, message.startsWith('not a ') ? `this is ${message}` : message));
}

/** What a media type is, to the eye and the ear. */
export function kindOf(type: string | undefined): Kind {
  const top = /^(image|audio|video)\//.exec(type ?? '')?.[1];
  if (top) return top as Kind;
  return type === 'application/ogg' ? 'audio' : 'other';
}

/** "640 bytes", "1.5 MiB": as the server counts its limit. */
export function sizeInWords(bytes: number): string {
  if (bytes < 1024) return bytes === 1 ? '1 byte' : `${bytes} bytes`;
  const [n, unit] = bytes < 1 << 20 ? [bytes / 1024, 'KiB'] : bytes < 1 << 30 ? [bytes / (1 << 20), 'MiB'] : [bytes / (1 << 30), 'GiB'];
  return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${unit}`;
}
