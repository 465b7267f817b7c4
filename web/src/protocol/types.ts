// The shapes of troupe.v1 as they travel: HTTP answers and WebSocket frames.

export interface Character {
  id: string;
  name: string;
  avatar?: string | null;
  tagline?: string | null;
  description?: string | null;
  tags?: string[];
}

export interface ChatInfo {
  chat: string;
  character: string;
  name?: string;
  avatar?: string | null;
  created?: string;
  updated?: string;
}

/** How a reply ended; null while it is still being written. */
export type Finish = 'stop' | 'length' | 'stopped' | 'error';

export interface Variant {
  variant: number;
  text: string;
  finish: Finish | null;
  created?: string;
  /** With finish "error": the error's code. */
  code?: string;
}

export interface Turn {
  turn: string;
  chat: string;
  created?: string;
  /** The user's words; null or absent in a greeting. */
  text?: string | null;
  /** Ids of the files that came with it, and beside them what each is. */
  media?: string[];
  media_types?: string[];
  variants: Variant[];
  chosen?: number;
}

export type Progress = 'queued' | 'thinking' | 'writing';

export interface ErrorEvent {
  type: 'error';
  ref?: string;
  chat?: string;
  turn?: string;
  variant?: number;
  code: string;
  message?: string;
  retry_after_ms?: number;
}

export interface DeltaEvent {
  type: 'delta';
  chat: string;
  turn: string;
  variant: number;
  attempt: number | string;
  /** Bytes of UTF-8 before this text. */
  offset: number;
  text: string;
}

export interface ReplyEvent {
  type: 'reply';
  chat: string;
  turn: string;
  variant: number;
  text: string;
  finish: Finish;
  code?: string;
}

/** What comes without a ref. */
export type ServerEvent =
  | { type: 'turn'; chat?: string; turn: Turn }
  | { type: 'status'; chat: string; turn: string; state: Progress; position?: number }
  | DeltaEvent
  | ReplyEvent
  | { type: 'changed'; chat: string; turn: Turn; change?: number }
  /** Without a turn: the whole chat. */
  | { type: 'deleted'; chat: string; turn?: string | null; change?: number }
  | ErrorEvent;

/** The answer to `open`. */
export interface Opened {
  type: 'opened';
  ref: string;
  chat: string;
  character: Character;
  turns: Turn[];
  change?: number;
  more?: boolean;
}

/** Any request, before its ref is put in. */
export type Request = { type: string } & Record<string, unknown>;
