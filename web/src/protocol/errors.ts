// Errors, and what to tell a person about them.

/** An error that the server answered, or that stands for one (`lost`, `timeout`, `offline`). */
export class TroupeError extends Error {
  constructor(
    readonly code: string,
    message: string,
    /** Wait this long before trying again; 0 = not said. */
    readonly retryAfterMs = 0,
    readonly field = '',
  ) {
    super(message);
    this.name = 'TroupeError';
  }

  /** The answer may come yet: nothing says that the request failed. */
  get uncertain(): boolean {
    return this.code === 'lost' || this.code === 'timeout';
  }
}

const words: Record<string, string> = {
  bad_request: 'The server could not make sense of that.',
  unauthorized: 'Your session has ended. Reload the page to begin a new one.',
  not_found: 'That is no longer here. It may have been deleted.',
  too_large: 'That is too long. A message may have 8,000 characters.',
  rate_limited: 'You are writing faster than the company can read.',
  overloaded: 'Every seat is taken just now.',
  engine_failed: 'The character lost the thread and could not answer.',
  conflict: 'A reply to this is still being written.',
  internal: 'Something went wrong on our side.',
  lost: 'The connection was lost.',
  timeout: 'The server did not answer in time.',
  offline: 'You are offline.',
};

/** One or two sentences for a person, never a code. */
export function inWords(code: string, message = '', retryAfterMs = 0): string {
  let said = words[code] ?? (message || 'Something went wrong.');
  // What the server says of a bad request names the field or the limit: worth passing on.
  if ((code === 'bad_request' || code === 'too_large') && message) said = sentence(message);
  if (retryAfterMs > 0) said += ` Try again in ${duration(retryAfterMs)}.`;
  else if (code === 'overloaded' || code === 'rate_limited') said += ' Try again in a moment.';
  return said;
}

/** The same for anything that was thrown. */
export function describe(error: unknown): string {
  if (error instanceof TroupeError) return inWords(error.code, error.message, error.retryAfterMs);
  return 'Something went wrong.';
}

/** "5 seconds", "2 minutes". */
export function duration(ms: number): string {
  const seconds = Math.max(1, Math.ceil(ms / 1000));
  if (seconds < 90) return seconds === 1 ? '1 second' : `${seconds} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}

function sentence(text: string): string {
  const head = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(head) ? head : `${head}.`;
}
