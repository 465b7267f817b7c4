// The chats of one page over one connection: opens and resumes them, sends messages
// until they are accepted, and carries out what a person asks for.
//
// A message keeps its id until the server has accepted it, over any number of
// reconnections, so that it is processed once.  Nothing is written to the browser's
// storage: what was not accepted when the page closes is gone, as it would be on paper.

import { Connection, type ConnectionOptions, type ConnectionState } from './connection';
import { TroupeError, describe, inWords } from './errors';
import type { Attachment } from './attachments';
import { newId } from './ids';
import { ChatModel, type OutItem } from './model';
import type { Opened, Request, ServerEvent, Turn } from './types';
import { countCharacters } from './utf8';

export interface ClientOptions extends Pick<ConnectionOptions, 'connect' | 'session' | 'timing'> {
  /** Something changed: draw again. */
  onChange: () => void;
  /** A thing went wrong that belongs to no single turn, in words. */
  onTrouble?: (words: string) => void;
  /** A message with files has become a turn: they are shown from the server now. */
  onFilesSettled?: (files: Attachment[]) => void;
}

/** Turns asked for at a time when scrolling back. */
const HISTORY_PAGE = 50;
const LATER = 'It goes out when the connection is back.';
/** How long repairs of one chat are gathered. */
const REPAIR_MS = 250;

/** Errors after which the same message may be sent again. */
const passing = new Set(['rate_limited', 'overloaded', 'internal', 'lost', 'timeout', 'conflict']);

interface Room {
  model: ChatModel;
  /** Opened on the connection of now. */
  open: boolean;
  opening: Promise<void> | null;
  sending: boolean;
  retryTimer: ReturnType<typeof setTimeout> | undefined;
  repairTimer: ReturnType<typeof setTimeout> | undefined;
  loadingOlder: boolean;
}

export class Client {
  readonly connection: Connection;
  /** The chat in view: only it and those with something under way are resumed. */
  active: string | null = null;
  private rooms = new Map<string, Room>();
  private waiters: (() => void)[] = [];

  constructor(private readonly options: ClientOptions) {
    this.connection = new Connection({
      connect: options.connect,
      session: options.session,
      ...(options.timing ? { timing: options.timing } : {}),
      onEvent: (event) => this.event(event),
      onState: (state) => this.stateChanged(state),
    });
  }

  get state(): ConnectionState {
    return this.connection.state;
  }

  /** The model of a chat, opened as soon as there is a connection. */
  chat(id: string): ChatModel {
    return this.room(id).model;
  }

  /** Show this chat, or none. */
  activate(id: string | null): void {
    this.active = id;
    if (id !== null) void this.openRoom(this.room(id));
  }

  /** Begin a chat with a character; one intention makes one chat, however often it is asked for. */
  async create(character: string): Promise<string> {
    const id = newId();
    const answer = await this.insist<Opened>({ type: 'open', character, id });
    const room = this.room(answer.chat);
    room.model.opened(answer, undefined);
    room.open = true;
    this.options.onChange();
    return answer.chat;
  }

  /** Take a message into the outbox; it goes out as soon as it can. */
  send(chat: string, text: string, files: Attachment[] = []): void {
    const room = this.room(chat);
    const item: OutItem = {
      id: newId(), text, files, created: new Date().toISOString(), sent: false, twin: null,
      ...(this.state === 'open' ? { state: 'sending', note: '' } : { state: 'waiting', note: LATER }),
    };
    room.model.outbox = [...room.model.outbox, item];
    room.model.touch();
    this.options.onChange();
    void this.flush(room);
  }

  /** Give up a message that failed: what it was, for the composer. */
  discard(chat: string, id: string): OutItem | undefined {
    const model = this.room(chat).model;
    const item = model.outbox.find((o) => o.id === id);
    model.outbox = model.outbox.filter((o) => o !== item);
    model.touch();
    this.options.onChange();
    return item;
  }

  /** Send a failed or waiting message again now. */
  again(chat: string, id: string): void {
    const room = this.room(chat);
    this.note(room, id, { state: 'sending', note: '' });
    void this.flush(room);
  }

  stop(chat: string, turn: string): Promise<void> {
    return this.insist({ type: 'stop', turn }, chat);
  }

  async regenerate(chat: string, turn: string): Promise<void> {
    const model = this.room(chat).model;
    const held = model.find(turn);
    // The expected number makes a repeated request harmless.
    const expected = held ? Math.max(-1, ...held.variants.map((v) => v.variant)) + 1 : undefined;
    const request = { type: 'regenerate', turn, ...(expected !== undefined ? { variant: expected } : {}) };
    const answer = await this.insist<{ variant?: number }>(request, chat);
    const variant = answer.variant ?? expected;
    if (variant !== undefined) model.regenerating(turn, variant);
    this.options.onChange();
  }

  async choose(chat: string, turn: string, variant: number): Promise<void> {
    const model = this.room(chat).model;
    const before = model.find(turn)?.chosen ?? 0;
    model.choose(turn, variant);
    this.options.onChange();
    try {
      await this.insist({ type: 'choose', turn, variant }, chat);
    } catch (error) {
      model.choose(turn, before);
      this.options.onChange();
      throw error;
    }
  }

  async edit(chat: string, turn: string, text: string): Promise<void> {
    await this.insist({ type: 'edit', turn, text }, chat);
    this.room(chat).model.edited(turn, text);
    this.options.onChange();
  }

  async remove(chat: string, turn: string): Promise<void> {
    await this.insist({ type: 'delete', turn }, chat);
    this.room(chat).model.remove(turn);
    this.options.onChange();
  }

  /** Load a page of older turns; false if there was nothing to do. */
  async older(chat: string): Promise<boolean> {
    const room = this.room(chat);
    const before = room.model.turns[0]?.turn;
    if (!room.open || room.loadingOlder || !room.model.hasOlder || before === undefined) return false;
    room.loadingOlder = true;
    try {
      const request = { type: 'history', chat, before, limit: HISTORY_PAGE };
      const answer = await this.connection.request<{ turns: Turn[] }>(request);
      // The list may have been replaced meanwhile: then this page no longer joins it.
      if (room.model.turns[0]?.turn !== before) return false;
      room.model.older(answer.turns, answer.turns.length >= HISTORY_PAGE);
      this.options.onChange();
      return true;
    } finally {
      room.loadingOlder = false;
    }
  }

  /** Forget a chat that was deleted. */
  forget(chat: string): void {
    const room = this.rooms.get(chat);
    if (room) this.close(room);
    this.rooms.delete(chat);
  }

  private room(id: string): Room {
    let room = this.rooms.get(id);
    if (!room) {
      const made: Room = {
        model: new ChatModel(id, () => this.repair(made)),
        open: false, opening: null, sending: false, loadingOlder: false,
        retryTimer: undefined, repairTimer: undefined,
      };
      room = made;
      this.rooms.set(id, room);
    }
    return room;
  }

  private close(room: Room): void {
    clearTimeout(room.retryTimer);
    clearTimeout(room.repairTimer);
  }

  private stateChanged(state: ConnectionState): void {
    if (state === 'open') {
      const waiters = this.waiters;
      this.waiters = [];
      for (const wake of waiters) wake();
      for (const room of this.rooms.values()) {
        if (room.model.chat === this.active || room.model.outbox.length > 0) void this.openRoom(room);
      }
    } else {
      for (const room of this.rooms.values()) room.open = false;
    }
    this.options.onChange();
  }

  /** Open or resume a chat on the connection of now, then send what waits. */
  private openRoom(room: Room): Promise<void> {
    if (this.state !== 'open' || room.open || room.model.gone) return Promise.resolve();
    room.opening ??= this.resume(room).finally(() => {
      room.opening = null;
      // The connection broke and came back while this was under way.
      if (this.state === 'open' && !room.open && !room.model.gone) this.repair(room);
    });
    return room.opening;
  }

  private async resume(room: Room): Promise<void> {
    const { model } = room;
    try {
      let after = model.resumeAfter();
      const request = { type: 'open', chat: model.chat };
      const since = model.change !== undefined ? { since: model.change } : {};
      let answer = await this.connection.request<Opened>(after !== undefined ? { ...request, after, ...since } : request);
      if (answer.more && after !== undefined) {
        // Too much has happened meanwhile: begin with the newest turns again.
        after = undefined;
        answer = await this.connection.request<Opened>(request);
      }
      model.opened(answer, after);
      room.open = true;
      if (after !== undefined) this.know(room, answer.change);
    } catch (error) {
      if (!(error instanceof TroupeError)) throw error;
      if (error.code === 'not_found' || error.code === 'bad_request') {
        if (model.loaded && error.code === 'bad_request') model.turns = []; // `after` is unknown: from scratch
        else model.gone = true;
        model.touch();
      } else if (!error.uncertain) {
        this.options.onTrouble?.(describe(error));
      }
    }
    this.options.onChange();
    if (room.open) void this.flush(room);
  }

  /**
   * After a resume, `changed` and `deleted` of older turns follow `opened`.  A `pong` behind them proves that they came; if the
   * connection breaks before, the next `open` asks for them again.
   */
  private know({ model }: Room, change: number | undefined): void {
    this.connection.request({ type: 'ping' }).then(
      () => (model.change = change),
      () => {},
    );
  }

  /** Something is missing in a chat: open it again, soon, once. */
  private repair(room: Room): void {
    if (room.repairTimer !== undefined) return;
    room.repairTimer = setTimeout(() => {
      room.repairTimer = undefined;
      room.open = false;
      void this.openRoom(room);
    }, REPAIR_MS);
  }

  /** Send the outbox of a chat, one message after the other so that their order stays. */
  private async flush(room: Room): Promise<void> {
    if (room.sending || !room.open) {
      if (!room.open) void this.openRoom(room);
      return;
    }
    room.sending = true;
    clearTimeout(room.retryTimer);
    const { model } = room;
    try {
      for (;;) {
        const item = model.outbox.find((o) => o.state !== 'failed');
        if (!item || !room.open) return;
        this.note(room, item.id, { sent: true, state: 'sending', note: '' });
        try {
          const media = item.files.length > 0 ? { media: item.files.map((f) => f.media) } : {};
          const request = { type: 'send', chat: model.chat, id: item.id, text: item.text, ...media };
          const answer = await this.connection.request<{ turn: string }>(request);
          model.accepted(item.id, answer.turn);
          if (item.files.length > 0) this.options.onFilesSettled?.(item.files);
          this.options.onChange();
        } catch (error) {
          if (!(error instanceof TroupeError)) throw error;
          this.refused(room, item, error);
          if (passing.has(error.code)) return;
        }
      }
    } finally {
      room.sending = false;
    }
  }

  /** A message was not accepted: it waits, or has failed for good. */
  private refused(room: Room, item: OutItem, error: TroupeError): void {
    if (!passing.has(error.code)) {
      if (error.code === 'not_found') room.model.gone = true;
      const filesGone = error.code === 'bad_request' && error.field === 'media';
      this.note(room, item.id, { state: 'failed', note: inWords(error.code, error.message), filesGone });
      return;
    }
    if (error.code === 'lost') {
      this.note(room, item.id, { state: 'waiting', note: LATER });
      return; // the reconnection sends it
    }
    const wait = Math.max(error.retryAfterMs, error.code === 'timeout' ? 0 : 2000);
    const note = error.code === 'timeout' ? '' : `${inWords(error.code)} It is sent again by itself.`;
    this.note(room, item.id, { state: 'waiting', note });
    room.retryTimer = setTimeout(() => void this.flush(room), wait);
  }

  private note(room: Room, id: string, change: Partial<OutItem>): void {
    room.model.outbox = room.model.outbox.map((o) => (o.id === id ? { ...o, ...change } : o));
    room.model.touch();
    this.options.onChange();
  }

  /**
   * A request that is safe to repeat: waits for a connection, and for its chat to be open on it
   * (the server looks for a turn in open chats only), and asks again after a broken one.
   */
  private async insist<T>(request: Request, chat?: string, tries = 4): Promise<T> {
    for (let i = 1; ; i++) {
      await this.connected();
      if (chat !== undefined) await this.openRoom(this.room(chat));
      try {
        return await this.connection.request<T>(request);
      } catch (error) {
        if (!(error instanceof TroupeError) || !error.uncertain || i === tries) throw error;
      }
    }
  }

  private connected(): Promise<void> {
    if (this.state === 'open') return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new TroupeError('offline', 'no connection')), 20_000);
      this.waiters.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  private event(event: ServerEvent): void {
    const chat = event.type === 'turn' ? event.chat ?? event.turn.chat : event.chat;
    const room = chat === undefined ? this.roomOf(event) : this.rooms.get(chat);
    if (room) room.model.apply(event);
    else if (event.type === 'error') this.options.onTrouble?.(inWords(event.code, event.message, event.retry_after_ms));
    this.options.onChange();
  }

  /** An error may name its turn alone. */
  private roomOf(event: ServerEvent): Room | undefined {
    const turn = event.type === 'error' ? event.turn : undefined;
    if (turn === undefined) return undefined;
    return [...this.rooms.values()].find((r) => r.model.find(turn));
  }
}

/** Characters a message may have (TROUPE_TEXT_MAX's default). */
export const TEXT_MAX = 8000;

/** How many characters are left; below 0 it is too long. */
export function charactersLeft(text: string): number {
  return TEXT_MAX - countCharacters(text);
}
