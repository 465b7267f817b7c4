// One chat as the page knows it: the server's events applied to a list of turns.
//
// Pure: no I/O, no clock, no DOM.  Turns are replaced, never changed in place, so that a
// view may compare them by identity.  Applying the same event twice does no harm: every
// rule here holds over reconnections, when the server repeats what may have been lost.
//
//   delta    text from a byte offset on; replaces what is held from there on.  One that
//            begins beyond what is held shows a gap: `repair` asks for the chat again.
//   reply    the authoritative text; later deltas of that variant are dropped.
//   opened   the newest turns, or those after what was held; replaces them.

import type { Character, DeltaEvent, ErrorEvent, Opened, Progress, ReplyEvent, ServerEvent, Turn, Variant } from './types';
import type { Attachment } from './attachments';
import { inWords } from './errors';
import { utf8Head, utf8Length } from './utf8';

export interface VariantView extends Variant {
  /** Of the deltas held; null: not known (listed by the server). */
  attempt: number | string | null;
  /** What to say, with finish "error". */
  message?: string;
}

export interface TurnView extends Omit<Turn, 'variants' | 'chosen' | 'text'> {
  text: string | null;
  variants: VariantView[];
  chosen: number;
  status: { state: Progress; position: number } | null;
}

/** A message of this page that the server has not accepted yet.  Held in memory only. */
export interface OutItem {
  id: string;
  text: string;
  /** Stored files that go with it. */
  files: Attachment[];
  created: string;
  /** It went out at least once: the server may have it. */
  sent: boolean;
  state: 'sending' | 'waiting' | 'failed';
  /** Why it waits or has failed, in words. */
  note: string;
  /** It failed for its files: the server no longer has them. */
  filesGone?: boolean;
  /** A listed turn that is this message's, most likely: don't show it twice. */
  twin: string | null;
}

/** As many turns `opened` lists at most. */
const OPENED_PAGE = 50;
/** Instead of a turn's id in `deleted`, where the whole chat is gone. */
const NIL = '00000000-0000-0000-0000-000000000000';
/** Events for a turn that isn't known yet wait for it, this many at most. */
const ORPHANS_MAX = 256;

export class ChatModel {
  turns: TurnView[] = [];
  outbox: OutItem[] = [];
  character: Character | null = null;
  /** Every change of the chat up to this one has come; undefined until that is known. */
  change: number | undefined;
  /** Older turns are there to be loaded. */
  hasOlder = false;
  /** `opened` has come at least once. */
  loaded = false;
  /** The chat was deleted, or is not this user's. */
  gone = false;
  /** Grows with every change, for views. */
  version = 0;
  private orphans: ServerEvent[] = [];

  constructor(
    readonly chat: string,
    /** Something is missing here: have the chat opened again. */
    private readonly repair: () => void = () => {},
  ) {}

  /** A turn of this id, if it is held. */
  find(id: string): TurnView | undefined {
    return this.turns.find((t) => t.turn === id);
  }

  /** The newest turn up to which every reply is held; undefined: open from scratch. */
  resumeAfter(): string | undefined {
    let after: string | undefined;
    for (const turn of this.turns) {
      if (isRunning(turn)) break;
      after = turn.turn;
    }
    return after;
  }

  /** The server's answer to `open`; `after` is what was asked with it. */
  opened(answer: Opened, after: string | undefined): void {
    this.character = answer.character ?? this.character;
    if (after === undefined) this.change = answer.change; // nothing is to come behind it
    const listed = answer.turns.map((t) => this.adopt(t, true));
    const first = listed[0]?.turn;
    let kept: TurnView[];
    if (after !== undefined) {
      kept = this.turns.filter((t) => t.turn <= after);
    } else {
      // The newest turns; a full page may have older ones before it.
      const older = answer.more === true || listed.length >= OPENED_PAGE;
      const joined = older && first !== undefined && this.find(first) !== undefined;
      kept = joined ? this.turns.filter((t) => t.turn < first) : [];
      if (!joined || kept.length === 0) this.hasOlder = older;
    }
    const before = new Set(this.turns.map((t) => t.turn));
    this.turns = merge(kept, listed);
    this.loaded = true;
    for (const turn of listed) if (!before.has(turn.turn)) this.twin(turn);
    this.settleOrphans();
    this.touch();
  }

  /** Older turns came, asked for with `history`. */
  older(turns: Turn[], more: boolean): void {
    this.turns = merge(turns.map((t) => this.adopt(t, false)), this.turns);
    this.hasOlder = more;
    this.touch();
  }

  /** A message of this page has become a turn. */
  accepted(id: string, turnId: string): void {
    const item = this.outbox.find((o) => o.id === id);
    this.outbox = this.outbox.filter((o) => o !== item);
    if (item && !this.find(turnId)) {
      this.insert({
        turn: turnId, chat: this.chat, created: item.created, text: item.text, media: item.files.map((f) => f.media),
        media_types: item.files.map((f) => f.type), variants: [], chosen: 0, status: { state: 'queued', position: 0 },
      });
      this.settleOrphans();
    }
    this.touch();
  }

  /** A new variant has begun, on this page's wish. */
  regenerating(turnId: string, variant: number): void {
    this.update(turnId, (turn) => {
      if (turn.variants.some((v) => v.variant === variant)) return turn;
      const fresh: VariantView = { variant, text: '', finish: null, attempt: null };
      return { ...turn, variants: [...turn.variants, fresh], status: turn.status ?? { state: 'queued', position: 0 } };
    });
  }

  /** A variant was chosen on this page; the server confirms with `changed`. */
  choose(turnId: string, variant: number): void {
    this.update(turnId, (turn) => ({ ...turn, chosen: variant }));
  }

  /** The user's words were edited on this page. */
  edited(turnId: string, text: string): void {
    this.update(turnId, (turn) => ({ ...turn, text }));
  }

  remove(turnId: string): void {
    this.turns = this.turns.filter((t) => t.turn !== turnId);
    this.touch();
  }

  /** An event of this chat. */
  apply(event: ServerEvent): void {
    switch (event.type) {
      case 'turn':
      case 'changed': {
        const known = this.find(event.turn.turn);
        const oldest = this.turns[0]?.turn;
        // An older turn that was never loaded comes with the history.
        if (!known && this.hasOlder && oldest !== undefined && event.turn.turn < oldest) return;
        const turn = this.adopt(event.turn, false);
        this.insert(turn);
        if (!known) this.twin(turn);
        this.settleOrphans();
        this.touch();
        return;
      }
      case 'deleted':
        if (!event.turn || event.turn === NIL) {
          this.gone = true;
          this.touch();
          return;
        }
        this.orphans = this.orphans.filter((o) => turnOf(o) !== event.turn);
        this.remove(event.turn);
        return;
      case 'error':
        if (event.turn === undefined) {
          if (event.code === 'not_found') this.gone = true;
          this.touch();
          return;
        }
    }
    const id = turnOf(event);
    if (id === undefined) return;
    const turn = this.find(id);
    if (!turn) {
      this.orphan(event, id);
      return;
    }
    const next = this.step(turn, event);
    if (next !== turn) this.update(id, () => next);
  }

  /** The turn after one event of its own; the same object if nothing changes. */
  private step(turn: TurnView, event: ServerEvent): TurnView {
    switch (event.type) {
      case 'status':
        // A late one, after the reply, says nothing any more.
        if (!isRunning(turn)) return turn;
        return { ...turn, status: { state: event.state, position: event.position ?? 0 } };
      case 'delta':
        return this.delta(turn, event);
      case 'reply':
        return reply(turn, event);
      case 'error':
        return failed(turn, event);
      default:
        return turn;
    }
  }

  private delta(turn: TurnView, event: DeltaEvent): TurnView {
    const held = turn.variants.find((v) => v.variant === event.variant);
    if (held?.finish) return turn; // the reply has come already
    const order = compareAttempts(event.attempt, held?.attempt ?? null);
    if (order < 0) return turn; // of an attempt that was given up
    // A new attempt begins at 0; of one whose beginning was missed only a repair knows the text.
    const base = order > 0 && event.offset > 0 && held?.attempt != null ? '' : held?.text ?? '';
    const head = event.offset === 0 ? '' : utf8Head(base, event.offset);
    if (head === null) {
      if (event.offset > utf8Length(base)) this.repair();
      return turn;
    }
    const next: VariantView = {
      ...(held ?? { variant: event.variant, finish: null }),
      text: head + event.text,
      attempt: event.attempt,
    };
    return { ...withVariant(turn, next), status: { state: 'writing', position: 0 } };
  }

  /** An event came before its turn: it waits for `accepted`, or else the chat is opened again. */
  private orphan(event: ServerEvent, id: string): void {
    const oldest = this.turns[0]?.turn;
    if (this.loaded && oldest !== undefined && id < oldest && this.hasOlder) return;
    if (this.orphans.length < ORPHANS_MAX) this.orphans.push(event);
    if (this.outbox.length === 0) this.repair();
  }

  private settleOrphans(): void {
    const waiting = this.orphans;
    this.orphans = [];
    for (const event of waiting) {
      const id = turnOf(event);
      const turn = id === undefined ? undefined : this.find(id);
      if (turn) this.replace(this.step(turn, event));
      else if (this.outbox.length > 0) this.orphans.push(event);
    }
  }

  /** A turn as the server lists it, joined with what is held of it. */
  private adopt(turn: Turn, opened: boolean): TurnView {
    const held = this.find(turn.turn);
    const variants = turn.variants.map((v): VariantView => {
      const mine = held?.variants.find((h) => h.variant === v.variant);
      // A reply that has come stays: a listing made before it is older.
      if (mine?.finish && !v.finish) return mine;
      // Between events of one connection our own text may be ahead of a listing.
      if (!opened && mine && !v.finish && mine.text.length > v.text.length) return mine;
      const view: VariantView = { ...v, text: v.text ?? '', finish: v.finish ?? null, attempt: null };
      if (view.finish === 'error') view.message = inWords(view.code ?? 'engine_failed');
      return view;
    });
    for (const mine of held?.variants ?? [])
      if (!variants.some((v) => v.variant === mine.variant) && (mine.finish || !opened)) variants.push(mine);
    variants.sort((a, b) => a.variant - b.variant);
    const view: TurnView = {
      ...turn,
      text: turn.text ?? null,
      variants,
      chosen: turn.chosen ?? 0,
      status: null,
    };
    if (isRunning(view)) {
      const writing = runningVariant(view)?.text ? 'writing' : 'thinking';
      view.status = held?.status ?? { state: writing, position: 0 };
    }
    return view;
  }

  /** A turn that came from elsewhere may be a message of ours whose `accepted` was lost. */
  private twin(turn: TurnView): void {
    const same = (o: OutItem) => o.text.normalize('NFC') === turn.text?.normalize('NFC') && o.files.map((f) => f.media).join() === (turn.media ?? []).join();
    const item = this.outbox.find((o) => o.sent && !o.twin && same(o));
    if (item) item.twin = turn.turn;
  }

  private insert(turn: TurnView): void {
    this.turns = merge(this.turns, [turn]);
  }

  private replace(turn: TurnView): void {
    this.turns = this.turns.map((t) => (t.turn === turn.turn ? turn : t));
  }

  private update(id: string, change: (turn: TurnView) => TurnView): void {
    const turn = this.find(id);
    if (!turn) return;
    this.replace(change(turn));
    this.touch();
  }

  touch(): void {
    this.version++;
  }
}

/** A reply to this turn is still to come. */
export function isRunning(turn: TurnView): boolean {
  if (runningVariant(turn)) return true;
  return turn.text !== null && turn.variants.length === 0;
}

export function runningVariant(turn: TurnView): VariantView | undefined {
  return turn.variants.find((v) => v.finish === null);
}

function reply(turn: TurnView, event: ReplyEvent): TurnView {
  const held = turn.variants.find((v) => v.variant === event.variant);
  if (held?.finish) return turn; // seen
  const next: VariantView = {
    variant: event.variant, text: event.text, finish: event.finish, attempt: null,
    created: held?.created ?? new Date().toISOString(),
  };
  if (event.finish === 'error') {
    next.code = event.code ?? 'engine_failed';
    next.message = inWords(next.code);
  }
  const newest = turn.variants.every((v) => v.variant <= event.variant);
  return { ...withVariant(turn, next), chosen: newest ? event.variant : turn.chosen, status: null };
}

function failed(turn: TurnView, event: ErrorEvent): TurnView {
  const running = runningVariant(turn);
  const variant = event.variant ?? running?.variant ?? turn.variants.length;
  if (turn.variants.some((v) => v.variant === variant && v.finish)) return turn;
  const next: VariantView = {
    variant, text: running?.text ?? '', finish: 'error', code: event.code, attempt: null,
    message: inWords(event.code, event.message, event.retry_after_ms),
  };
  return { ...withVariant(turn, next), chosen: variant, status: null };
}

function withVariant(turn: TurnView, variant: VariantView): TurnView {
  const others = turn.variants.filter((v) => v.variant !== variant.variant);
  return { ...turn, variants: [...others, variant].sort((a, b) => a.variant - b.variant) };
}

/** >0: `a` is of a newer attempt than `b`; 0: the same, or `b` is not known. */
function compareAttempts(a: number | string, b: number | string | null): number {
  if (b === null || a === b) return 0;
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return 1; // opaque ids: the server passes only the newest attempt's
}

/** Both lists in the order of ids, which is the order of acceptance; the second wins. */
function merge(a: TurnView[], b: TurnView[]): TurnView[] {
  const byId = new Map<string, TurnView>();
  for (const turn of a) byId.set(turn.turn, turn);
  for (const turn of b) byId.set(turn.turn, turn);
  return [...byId.values()].sort((x, y) => (x.turn < y.turn ? -1 : x.turn > y.turn ? 1 : 0));
}

function turnOf(event: ServerEvent): string | undefined {
  if (event.type === 'turn' || event.type === 'changed') return event.turn.turn;
  return event.turn ?? undefined;
}
