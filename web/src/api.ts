// The HTTP side: the session, and the lists that don't come over the WebSocket.
// The session is an HttpOnly cookie; the token in the answer's body is not looked at.

import { TroupeError, type Character, type ChatInfo, type Stored } from './protocol';

let asking: Promise<void> | null = null;

/** Make sure of a session: with a valid cookie it stays the same user.  Asked for once at a time. */
export function ensureSession(): Promise<void> {
  asking ??= ask<void>('POST', '/api/session').finally(() => {
    asking = null;
  });
  return asking;
}

export async function listCharacters(): Promise<Character[]> {
  return (await withSession<{ characters: Character[] }>('GET', '/api/characters')).characters;
}

/** The user's chats, the one last spoken in first. */
export async function listChats(): Promise<ChatInfo[]> {
  const { chats } = await withSession<{ chats: ChatInfo[] }>('GET', '/api/chats');
  const at = (c: ChatInfo) => c.updated ?? c.created ?? c.chat;
  return chats.sort((a, b) => (at(a) < at(b) ? 1 : -1));
}

export async function deleteChat(id: string): Promise<void> {
  await withSession('DELETE', `/api/chats/${encodeURIComponent(id)}`);
}

/** Where a stored file is; the cookie goes along, so that an element may load it. */
export const mediaAddress = (id: string): string => `/api/media/${encodeURIComponent(id)}`;

export async function deleteMedia(id: string): Promise<void> {
  await withSession('DELETE', mediaAddress(id));
}

/** Whether a stored file is there; throws where that can't be told. */
export async function mediaIsThere(id: string): Promise<boolean> {
  try {
    await withSession('HEAD', mediaAddress(id));
    return true;
  } catch (error) {
    if (error instanceof TroupeError && error.code === 'not_found') return false;
    throw error;
  }
}

/** Send a file; `fetch` can't tell how far it is. */
export function uploadMedia(file: File, onProgress: (share: number) => void): { done: Promise<Stored>; abort: () => void } {
  let now: XMLHttpRequest | null = null;
  let given = false;
  const once = () => new Promise<Stored>((resolve, reject) => {
    const request = (now = new XMLHttpRequest());
    const lost = () => reject(new TroupeError(navigator.onLine ? 'lost' : 'offline', 'no answer'));
    request.open('POST', '/api/media');
    request.setRequestHeader('accept', 'application/json');
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onabort = request.onerror = request.ontimeout = lost;
    request.onload = () => {
      const body = parse(request.responseText);
      if (request.status === 200 && typeof body?.media === 'string') resolve(body);
      else reject(errorOf(request.status, request.getResponseHeader('retry-after'), body));
    };
    request.send(file);
  });
  const done = once().catch(async (error) => {
    if (given || !(error instanceof TroupeError) || error.code !== 'unauthorized') throw error;
    await ensureSession();
    if (given) throw error;
    return once();
  });
  return {
    done,
    abort: () => {
      given = true;
      now?.abort();
    },
  };
}

function parse(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** On 401 begin a session and ask once more. */
async function withSession<T>(method: string, path: string): Promise<T> {
  try {
    return await ask<T>(method, path);
  } catch (error) {
    if (!(error instanceof TroupeError) || error.code !== 'unauthorized') throw error;
    await ensureSession();
    return ask<T>(method, path);
  }
}

async function ask<T>(method: string, path: string): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { method, credentials: 'same-origin', headers: { accept: 'application/json' } });
  } catch {
    throw new TroupeError(navigator.onLine ? 'lost' : 'offline', 'no answer');
  }
  if (response.status === 204 || (response.ok && method === 'HEAD')) return undefined as T;
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body as T;
  throw errorOf(response.status, response.headers.get('retry-after'), body);
}

/** The error that an answer tells, or stands for. */
function errorOf(status: number, retryAfterHeader: string | null, body: any): TroupeError {
  const error = body?.error ?? {};
  return new TroupeError(error.code ?? codeOf(status), error.message ?? '', retryAfter(retryAfterHeader), error.field);
}

/** What a bare status means, where something between us and the server answered. */
function codeOf(status: number): string {
  if (status === 401) return 'unauthorized';
  if (status === 404) return 'not_found';
  if (status === 413) return 'too_large';
  if (status === 429) return 'rate_limited';
  if (status === 502 || status === 503 || status === 504) return 'overloaded';
  return status < 500 ? 'bad_request' : 'internal';
}

/** Retry-After in milliseconds: seconds or a date; 0 = not said. */
function retryAfter(header: string | null): number {
  if (!header) return 0;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - Date.now();
  return ms > 0 ? Math.min(ms, 600_000) : 0;
}
