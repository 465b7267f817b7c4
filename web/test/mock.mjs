// A small stand-in for the server, for the page's development and the client's tests.
// It keeps everything in memory and speaks troupe.v1 as the stub engine does:
// "<character's name> heard: <text as sent>", one word a delta.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { randomBytes } from 'node:crypto';
import { pathToFileURL } from 'node:url';

const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const cast = [
  ['mira', 'Mira', 'Keeps a small lighthouse museum, and the night.'],
  ['barnaby', 'Barnaby', 'Mends clocks, and tells riddles while he does.'],
  ['juno', 'Juno', 'Navigates a freighter, mostly around trouble.'],
];

let lastId = 0;
/** A UUIDv7 greater than every one before. */
function uuid() {
  lastId = Math.max(Date.now(), lastId + 1);
  const t = lastId.toString(16).padStart(12, '0');
  const r = randomBytes(8).toString('hex');
  return `${t.slice(0, 8)}-${t.slice(8)}-7${r.slice(0, 3)}-8${r.slice(3, 6)}-${r.slice(0, 12)}`;
}
const now = () => new Date().toISOString();
const isUuid = (s) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(s);

export async function startMock({ port = 0, delayMs = 150, gapMs = 40 } = {}) {
  const chats = new Map(); // id -> {id, user, character, turns: [], ids: Map, change, log: []}
  const users = new Map(); // token -> user
  const sockets = new Map(); // ws -> {user, open: Set}
  const media = new Map(); // id -> {user, type, body}
  const state = { delayMs, gapMs, refuse: null, cutBehindOpened: false, requests: [] };

  const view = (c) => ({ chat: c.id, character: c.character, name: c.name, avatar: `/api/characters/${c.character}/avatar`, created: c.created, updated: c.updated });
  const characters = cast.map(([id, name, tagline]) => ({ id, name, tagline, avatar: `/api/characters/${id}/avatar`, tags: [] }));
  const listed = (t) => ({
    turn: t.turn, chat: t.chat, created: t.created, text: t.text, media: t.media ?? [], ...(t.media?.length ? { media_types: t.media.map((id) => media.get(id)?.type) } : {}), chosen: t.chosen,
    variants: t.variants.map(({ variant, text, finish, created }) => ({ variant, text, finish, created })),
  });

  function tell(chat, event, except) {
    for (const [ws, s] of sockets) if (s.open.has(chat.id) && ws !== except) ws.send(JSON.stringify(event));
  }
  function changed(chat, turn, except) {
    chat.change++;
    turn.change = chat.change;
    chat.updated = now();
    tell(chat, { type: 'changed', chat: chat.id, turn: listed(turn) }, except);
  }

  // --- the engine -----------------------------------------------------------
  function generate(chat, turn) {
    const variant = turn.variants.length;
    const v = { variant, text: '', finish: null, created: now() };
    turn.variants.push(v);
    chat.jobs.push({ turn, v });
    if (chat.jobs.length === 1) run(chat);
    else tell(chat, { type: 'status', chat: chat.id, turn: turn.turn, state: 'queued', position: chat.jobs.length - 1 });
    return variant;
  }
  function run(chat) {
    const job = chat.jobs[0];
    if (!job) return;
    const { turn, v } = job;
    const whole = `${chat.name} heard: ${turn.text ?? ''}`;
    const words = whole.match(/\S+\s*|\s+/gu) ?? [];
    const base = { chat: chat.id, turn: turn.turn };
    tell(chat, { type: 'status', ...base, state: 'thinking' });
    const end = (finish) => {
      clearTimeout(job.timer);
      if (v.finish) return;
      v.finish = finish;
      turn.chosen = v.variant;
      if (!turn.deleted) {
        tell(chat, { type: 'reply', ...base, variant: v.variant, text: v.text, finish, usage: {}, ttft_ms: 1 });
        if (v.variant > 0) changed(chat, turn);
      }
      chat.jobs.shift();
      run(chat);
    };
    job.end = end;
    const step = () => {
      const word = words.shift();
      if (word === undefined) return end('stop');
      const offset = Buffer.byteLength(v.text);
      v.text += word;
      tell(chat, { type: 'delta', ...base, variant: v.variant, attempt: 1, offset, text: word });
      job.timer = setTimeout(step, state.gapMs);
    };
    job.timer = setTimeout(step, state.delayMs);
  }

  // --- requests over the WebSocket --------------------------------------------
  const fail = (code, message = code, more = {}) => ({ type: 'error', code, message, ...more });
  function find(user, id) {
    for (const chat of chats.values()) {
      const turn = chat.user === user && chat.turns.find((t) => t.turn === id);
      if (turn) return [chat, turn];
    }
    return [];
  }
  function opened(chat, session, after, since) {
    session.open.add(chat.id);
    const all = chat.turns;
    const turns = after ? all.filter((t) => t.turn > after) : all;
    const answer = {
      type: 'opened', chat: chat.id, character: characters.find((c) => c.id === chat.character),
      // the newest 50; or the first 50 after `after`, and whether newer ones are left
      turns: (after ? turns.slice(0, 50) : turns.slice(-50)).map(listed), change: chat.change, more: Boolean(after) && turns.length > 50,
    };
    const later = since === undefined || !after ? [] : [
      ...all.filter((t) => t.turn <= after && t.change > since).map((t) => ({ type: 'changed', chat: chat.id, turn: listed(t) })),
      ...chat.deleted.filter((d) => d.change > since).map((d) => ({ type: 'deleted', chat: chat.id, turn: d.turn })),
    ];
    return [answer, ...later];
  }
  function handle(ws, session, m) {
    const chat = m.chat !== undefined ? chats.get(m.chat) : undefined;
    if (m.chat !== undefined && !isUuid(m.chat)) return fail('bad_request', 'chat is not a UUID', { field: 'chat' });
    if (m.chat !== undefined && (!chat || chat.user !== session.user)) return fail('not_found', 'no such chat');
    const [home, turn] = m.turn !== undefined ? find(session.user, m.turn) : [];
    if (m.turn !== undefined && !turn) return fail('not_found', 'no such turn');
    switch (m.type) {
      case 'ping':
        return { type: 'pong' };
      case 'open': {
        if (chat) return opened(chat, session, m.after, m.since);
        const who = cast.find(([id]) => id === m.character);
        if (!who) return fail('not_found', 'no such character');
        const known = [...chats.values()].find((c) => m.id && c.user === session.user && c.clientId === m.id);
        if (known) return opened(known, session);
        const id = uuid();
        const greeting = (n) => ({ variant: n, text: ['*looks up.* Oh! A visitor. **Welcome.**', 'Ah, there you are. I had begun to wonder.'][n], finish: 'stop', created: now() });
        const made = {
          id, user: session.user, clientId: m.id, character: who[0], name: who[1], created: now(), updated: now(),
          change: 1, ids: new Map(), jobs: [], deleted: [],
          turns: [{ turn: uuid(), chat: id, created: now(), text: null, variants: [greeting(0), greeting(1)], chosen: 0, change: 0 }],
        };
        chats.set(id, made);
        return opened(made, session);
      }
      case 'send': {
        if (state.refuse) return fail(state.refuse.code, state.refuse.message, state.refuse);
        if ([...m.text].length > 8000) return fail('too_large', 'text is over 8000 characters', { field: 'text' });
        if ((m.media ?? []).some((id) => media.get(id)?.user !== session.user))
          return fail('bad_request', 'There is no such media: send the file first.', { field: 'media' });
        let id = chat.ids.get(m.id);
        if (!id) {
          const t = { turn: uuid(), chat: chat.id, created: now(), text: m.text, media: m.media, variants: [], chosen: 0, change: 0 };
          id = t.turn;
          chat.ids.set(m.id, id);
          chat.turns.push(t);
          chat.updated = now();
          tell(chat, { type: 'turn', turn: listed(t) }, ws);
          setTimeout(() => generate(chat, t));
        }
        if (state.cutBeforeAccepted) {
          state.cutBeforeAccepted = false;
          ws.terminate();
          return [];
        }
        return { type: 'accepted', turn: id };
      }
      case 'stop':
        home.jobs.find((j) => j.turn === turn)?.end?.('stopped');
        return { type: 'ok' };
      case 'regenerate': {
        if (turn.variants.some((v) => !v.finish)) return fail('conflict', 'a reply is running');
        setTimeout(() => changed(home, turn, ws));
        return { type: 'ok', variant: generate(home, turn) };
      }
      case 'choose':
        turn.chosen = m.variant;
        changed(home, turn, ws);
        return { type: 'ok' };
      case 'edit':
        turn.text = m.text;
        changed(home, turn, ws);
        return { type: 'ok' };
      case 'delete':
        turn.deleted = true;
        home.jobs.find((j) => j.turn === turn)?.end?.('stopped');
        home.turns = home.turns.filter((t) => t !== turn);
        home.deleted.push({ turn: turn.turn, change: ++home.change });
        tell(home, { type: 'deleted', chat: home.id, turn: turn.turn }, ws);
        return { type: 'ok' };
      case 'history':
        return { type: 'history', turns: chat.turns.filter((t) => t.turn < m.before).slice(-m.limit).map(listed) };
      default:
        return fail('bad_request', `type is unknown`, { field: 'type' });
    }
  }

  // --- HTTP ---------------------------------------------------------------------
  const files = { '/': ['index.html', 'text/html'], '/app.js': ['app.js', 'text/javascript'], '/app.css': ['app.css', 'text/css'], '/favicon.svg': ['favicon.svg', 'image/svg+xml'] };
  const tokenOf = (req) => /troupe_session=(\w+)/.exec(req.headers.cookie ?? '')?.[1] ?? /Bearer (\w+)/.exec(req.headers.authorization ?? '')?.[1];
  const server = createServer(async (req, res) => {
    const json = (status, body, headers = {}) => res.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
    const { pathname } = new URL(req.url, 'http://x');
    const file = files[pathname];
    if (file) {
      const body = await readFile(new URL(`../dist/${file[0]}`, import.meta.url));
      res.writeHead(200, { 'content-type': file[1], 'content-security-policy': CSP }).end(body);
      return;
    }
    const token = tokenOf(req);
    if (pathname === '/api/session' && req.method === 'POST') {
      const t = users.has(token) ? token : randomBytes(16).toString('hex');
      if (!users.has(t)) users.set(t, uuid());
      json(200, { user: users.get(t), token: t }, { 'set-cookie': `troupe_session=${t}; HttpOnly; SameSite=Strict; Path=/` });
      return;
    }
    const user = users.get(token);
    const avatar = /^\/api\/characters\/(\w+)\/avatar$/.exec(pathname)?.[1];
    if (avatar && cast.some(([id]) => id === avatar)) {
      const body = await readFile(new URL(`../../characters/${avatar}.svg`, import.meta.url)).catch(() => null);
      if (body) res.writeHead(200, { 'content-type': 'image/svg+xml' }).end(body);
      else json(404, { error: { code: 'not_found', message: 'no avatar' } });
    } else if (!user) json(401, { error: { code: 'unauthorized', message: 'no session' } });
    else if (pathname === '/api/media' && req.method === 'POST') {
      const chunks = [];
      for await (const chunk of req) chunks.push(chunk);
      const body = Buffer.concat(chunks);
      const type = req.headers['content-type'] ?? '';
      if (!/^(image|audio|video)\//.test(type)) return void json(415, { error: { code: 'bad_request', message: 'body: not a picture, sound or video', field: 'body' } });
      const id = uuid();
      media.set(id, { user, type, body });
      json(200, { media: id, type, bytes: body.length });
    } else if (pathname.startsWith('/api/media/')) {
      const id = pathname.slice(11);
      const held = media.get(id);
      if (held?.user !== user) return void json(404, { error: { code: 'not_found', message: 'no such media' } });
      if (req.method === 'DELETE') media.delete(id);
      if (req.method === 'DELETE') res.writeHead(204).end();
      else res.writeHead(200, { 'content-type': held.type, 'content-length': held.body.length }).end(req.method === 'HEAD' ? undefined : held.body);
    } else if (pathname === '/api/characters') json(200, { characters });
    else if (pathname === '/api/chats') json(200, { chats: [...chats.values()].filter((c) => c.user === user).map(view) });
    else if (pathname.startsWith('/api/chats/') && req.method === 'DELETE') {
      chats.delete(pathname.slice(11));
      res.writeHead(204).end();
    } else json(404, { error: { code: 'not_found', message: 'no such page' } });
  });
  const wss = new WebSocketServer({ noServer: true, handleProtocols: () => 'troupe.v1' });
  server.on('upgrade', (req, socket, head) => {
    const user = users.get(tokenOf(req));
    if (req.url !== '/ws') return socket.end('HTTP/1.1 404 Not Found\r\n\r\n');
    if (!user || state.down) return socket.end('HTTP/1.1 401 Unauthorized\r\n\r\n');
    wss.handleUpgrade(req, socket, head, (ws) => {
      const session = { user, open: new Set() };
      sockets.set(ws, session);
      ws.on('close', () => sockets.delete(ws));
      ws.on('message', (data) => {
        const m = JSON.parse(data);
        state.requests.push(m);
        const answers = [handle(ws, session, m)].flat();
        if (answers[0]) answers[0].ref = m.ref;
        if (state.cutBehindOpened && answers.length > 1) {
          state.cutBehindOpened = false;
          ws.send(JSON.stringify(answers[0]), () => ws.terminate());
          return;
        }
        for (const a of answers) ws.send(JSON.stringify(a));
      });
    });
  });
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  const url = `http://127.0.0.1:${server.address().port}`;
  return {
    url, state, chats, media, sockets, tell,
    /** Kill every connection, as a broken network does. */
    cut: () => { for (const ws of sockets.keys()) ws.terminate(); },
    close: (code) => { for (const ws of sockets.keys()) ws.close(code); },
    stop: () => { for (const ws of sockets.keys()) ws.terminate(); server.close(); server.closeAllConnections(); },
    changed,
  };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const port = Number(process.env.PORT ?? 8090);
  const mock = await startMock({ port, delayMs: Number(process.env.DELAY_MS ?? 200), gapMs: Number(process.env.GAP_MS ?? 50) });
  console.log(`mock server: ${mock.url}`);
}
