// One WebSocket that comes back: requests with refs and deadlines, events, reconnection
// with exponential back-off and jitter.
//
//   idle       -> connecting  start
//   connecting -> open        the handshake is done
//   connecting -> waiting     it failed; the session is asked for again before the next
//   open       -> waiting     it broke, or a ping went unanswered
//   waiting    -> connecting  the pause is over, or `hurry` was called
//   any        -> idle        stop

import { TroupeError } from './errors';
import type { Request } from './types';

/** What is used of a WebSocket: the browser's, or the `ws` package's in tests. */
export interface Socket {
  readyState: number;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  onopen: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
}

export type ConnectionState = 'idle' | 'connecting' | 'open' | 'waiting';

export interface ConnectionOptions {
  /** Opens a socket with the subprotocol troupe.v1. */
  connect: () => Socket;
  /** Makes sure of a session; throws a TroupeError, whose wait is honoured. */
  session: () => Promise<void>;
  onEvent: (event: any) => void;
  onState: (state: ConnectionState) => void;
  /** Times in milliseconds; tests shorten them. */
  timing?: Partial<Timing>;
}

export interface Timing {
  /** First pause, doubled to the last. */
  pauseFirst: number;
  pauseLast: number;
  /** For an answer to a request. */
  answer: number;
  /** For a handshake. */
  handshake: number;
  /** Silence before a ping. */
  ping: number;
}

const usual: Timing = { pauseFirst: 500, pauseLast: 20_000, answer: 15_000, handshake: 10_000, ping: 25_000 };

interface Pending {
  resolve: (answer: any) => void;
  reject: (error: TroupeError) => void;
  timer: ReturnType<typeof setTimeout>;
}

export class Connection {
  state: ConnectionState = 'idle';
  /** Why there is no connection now, for a person; '' while there is one. */
  trouble: TroupeError | null = null;
  private socket: Socket | null = null;
  private pending = new Map<string, Pending>();
  private nextRef = 1;
  private failures = 0;
  private sessionKnown = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private pinger: ReturnType<typeof setTimeout> | undefined;
  private timing: Timing;

  constructor(private readonly options: ConnectionOptions) {
    this.timing = { ...usual, ...options.timing };
  }

  start(): void {
    if (this.state === 'idle') void this.dial();
  }

  stop(): void {
    clearTimeout(this.timer);
    this.drop(new TroupeError('lost', 'stopped'));
    this.enter('idle');
  }

  /** The network is back, or the person asks: don't wait out the pause. */
  hurry(): void {
    if (this.state === 'waiting') {
      clearTimeout(this.timer);
      void this.dial();
    } else if (this.state === 'open') {
      this.ping(Math.min(3000, this.timing.answer)); // is it alive still?
    }
  }

  /** Send one request; rejects with `lost` when the connection breaks before the answer. */
  request<T>(request: Request, deadline = this.timing.answer): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.state !== 'open' || !this.socket) {
        reject(new TroupeError('lost', 'not connected'));
        return;
      }
      const ref = `r${this.nextRef++}`;
      const timer = setTimeout(() => {
        this.pending.delete(ref);
        reject(new TroupeError('timeout', 'no answer'));
      }, deadline);
      this.pending.set(ref, { resolve, reject, timer });
      this.socket.send(JSON.stringify({ ...request, ref }));
    });
  }

  private async dial(): Promise<void> {
    this.enter('connecting');
    if (!this.sessionKnown) {
      try {
        await this.options.session();
        this.sessionKnown = true;
      } catch (error) {
        const known = error instanceof TroupeError ? error : new TroupeError('offline', String(error));
        if (this.now() === 'connecting') this.retry(known);
        return;
      }
      if (this.now() !== 'connecting') return; // stopped meanwhile
    }
    const socket = this.options.connect();
    this.socket = socket;
    this.timer = setTimeout(() => this.broke(socket, 0), this.timing.handshake);
    socket.onopen = () => this.opened(socket);
    socket.onmessage = (event) => this.heard(socket, event.data);
    socket.onclose = (event) => this.broke(socket, event.code ?? 0);
    socket.onerror = () => {}; // `close` follows
  }

  private opened(socket: Socket): void {
    if (socket !== this.socket) return;
    clearTimeout(this.timer);
    this.trouble = null;
    this.enter('open');
    this.waitForSilence();
  }

  private heard(socket: Socket, data: unknown): void {
    if (socket !== this.socket || typeof data !== 'string') return;
    this.failures = 0; // it works: the next pause is short again
    this.waitForSilence();
    let message: any;
    try {
      message = JSON.parse(data);
    } catch {
      return; // not ours to mend
    }
    const waiting = typeof message.ref === 'string' ? this.pending.get(message.ref) : undefined;
    if (!waiting) {
      if (message.ref === undefined || message.type === 'error') this.options.onEvent(message);
      return;
    }
    this.pending.delete(message.ref);
    clearTimeout(waiting.timer);
    if (message.type === 'error')
      waiting.reject(new TroupeError(message.code, message.message ?? '', message.retry_after_ms ?? 0, message.field));
    else waiting.resolve(message);
  }

  /** The connection is over; `code` is the WebSocket's own, 0 if it gave none. */
  private broke(socket: Socket, code: number): void {
    if (socket !== this.socket) return;
    clearTimeout(this.timer);
    const wasOpen = this.state === 'open';
    this.drop(new TroupeError('lost', `closed ${code}`));
    // A handshake that fails may be a session that has ended: ask for it again.
    if (!wasOpen || code === 1008) this.sessionKnown = false;
    // A drained server (1012) is back soon; a broken connection is tried at once, once.
    this.retry(new TroupeError(code === 1013 ? 'overloaded' : 'lost', `closed ${code}`));
  }

  /** Wait, longer each time, with jitter so that a thousand pages don't come back at once. */
  private retry(trouble: TroupeError): void {
    this.trouble = trouble;
    const { pauseFirst, pauseLast } = this.timing;
    const pause = Math.min(pauseLast, pauseFirst * 2 ** Math.min(this.failures, 16));
    this.failures++;
    const wait = Math.max(pause * (0.5 + Math.random() / 2), trouble.retryAfterMs);
    this.enter('waiting');
    this.timer = setTimeout(() => void this.dial(), wait);
  }

  /** After a silence, ask whether the other side is there still. */
  private waitForSilence(): void {
    clearTimeout(this.pinger);
    this.pinger = setTimeout(() => this.ping(this.timing.answer), this.timing.ping);
  }

  private ping(deadline: number): void {
    const socket = this.socket;
    if (!socket) return;
    this.request({ type: 'ping' }, deadline).catch((error: TroupeError) => {
      if (error.code === 'timeout' && socket === this.socket) this.broke(socket, 0);
    });
  }

  /** Let the socket go; whoever waits for an answer hears `error`. */
  private drop(error: TroupeError): void {
    const socket = this.socket;
    this.socket = null;
    clearTimeout(this.pinger);
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      try {
        socket.close();
      } catch {
        // it was not open yet
      }
    }
    const waiting = [...this.pending.values()];
    this.pending.clear();
    for (const p of waiting) {
      clearTimeout(p.timer);
      p.reject(error);
    }
  }

  private enter(state: ConnectionState): void {
    if (this.state === state) return;
    this.state = state;
    this.options.onState(state);
  }

  /** The state, past what the compiler believes it to be across an await. */
  private now(): ConnectionState {
    return this.state;
  }
}
