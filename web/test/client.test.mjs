// The client against the mock server: connections that break at every bad moment.
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { webcrypto } from 'node:crypto';
import WebSocket from 'ws';
import { startMock } from './mock.mjs';
import { Client, TroupeError } from '../node_modules/.cache/protocol.mjs';

globalThis.crypto ??= webcrypto; // Node 18

let mock;
const clients = [];
before(async () => { mock = await startMock({ delayMs: 30, gapMs: 10 }); });
beforeEach(() => { mock.state.gapMs = 10; mock.state.refuse = null; });
after(() => {
  for (const c of clients) c.connection.stop();
  mock.stop();
});

async function user() {
  const response = await fetch(`${mock.url}/api/session`, { method: 'POST' });
  return (await response.json()).token;
}

function page(token, more = {}) {
  const client = new Client({
    connect: () => new WebSocket(`${mock.url.replace('http', 'ws')}/ws`, 'troupe.v1', { headers: { authorization: `Bearer ${token}` } }),
    session: async () => {},
    onChange: () => {},
    timing: { pauseFirst: 20, pauseLast: 200, answer: 1000, handshake: 1000, ping: 5000 },
    ...more,
  });
  clients.push(client);
  client.connection.start();
  return client;
}

async function until(what, condition, ms = 5000) {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) assert.fail(`waited in vain for ${what}`);
    await new Promise((r) => setTimeout(r, 5));
  }
}

const last = (model) => model.turns[model.turns.length - 1];
const replyOf = (model) => last(model)?.variants[last(model).chosen]?.text;
const isDone = (model) => last(model)?.text !== null && last(model)?.variants.length > 0 && last(model).variants.every((v) => v.finish);
const words = (n) => Array.from({ length: n }, (_, i) => `wörd${i}`).join(' ');

test('a chat begins with its greeting, and a message is answered', async () => {
  const client = page(await user());
  const id = await client.create('mira');
  const model = client.chat(id);
  assert.equal(model.turns[0].text, null);
  client.activate(id);
  client.send(id, 'Good evening');
  await until('the reply', () => isDone(model));
  assert.equal(replyOf(model), 'Mira heard: Good evening');
});

test('connections cut over and over in mid-reply: no word lost or doubled', async () => {
  const client = page(await user());
  const id = await client.create('barnaby');
  client.activate(id);
  const model = client.chat(id);
  const text = words(60);
  client.send(id, text);
  for (let i = 0; i < 5; i++) {
    await new Promise((r) => setTimeout(r, 90));
    mock.cut();
    await until('the reconnection', () => client.state === 'open');
  }
  await until('the reply', () => isDone(model));
  assert.equal(replyOf(model), `Barnaby heard: ${text}`);
  assert.equal(model.turns.length, 2);
});

test('`accepted` is lost: the message goes again under its id, and counts once', async () => {
  const client = page(await user());
  const id = await client.create('juno');
  client.activate(id);
  const model = client.chat(id);
  mock.state.cutBeforeAccepted = true;
  client.send(id, 'only once');
  await until('the reply', () => isDone(model) && model.outbox.length === 0);
  assert.equal(model.turns.length, 2);
  assert.equal(mock.chats.get(id).turns.length, 2);
  const ids = mock.state.requests.filter((m) => m.type === 'send' && m.text === 'only once').map((m) => m.id);
  assert.ok(ids.length >= 2);
  assert.equal(new Set(ids).size, 1);
});

test('messages written while there is no connection go out in order', async () => {
  const client = page(await user());
  const id = await client.create('mira');
  client.activate(id);
  const model = client.chat(id);
  mock.state.down = true;
  mock.cut();
  await until('the cut', () => client.state !== 'open');
  client.send(id, 'one');
  client.send(id, 'two');
  assert.equal(model.outbox.length, 2);
  mock.state.down = false;
  await until('both replies', () => model.turns.length === 3 && isDone(model));
  assert.deepEqual(model.turns.map((t) => t.text), [null, 'one', 'two']);
});

/** A file as the tray hands it over. */
async function stored(token, name) {
  const response = await fetch(`${mock.url}/api/media`, { method: 'POST', body: name, headers: { 'content-type': 'image/png', authorization: `Bearer ${token}` } });
  const { media, type } = await response.json();
  return { key: name, name, media, type, kind: 'image', preview: `blob:${name}` };
}

test('files go with their message over a cut, once, with no word and in order', async () => {
  const token = await user();
  const settled = [];
  const client = page(token, { onFilesSettled: (files) => settled.push(...files.map((f) => f.name)) });
  const id = await client.create('mira');
  client.activate(id);
  const model = client.chat(id);
  const [a, b] = [await stored(token, 'a'), await stored(token, 'b')];
  mock.state.cutBeforeAccepted = true;
  client.send(id, '', [a, b]);
  client.send(id, 'after it');
  assert.deepEqual(model.outbox[0].files, [a, b]);
  await until('both replies', () => model.turns.length === 3 && isDone(model) && model.outbox.length === 0);
  assert.deepEqual(model.turns[1].media, [a.media, b.media]);
  assert.deepEqual(model.turns[1].media_types, ['image/png', 'image/png']);
  assert.equal(model.turns[1].text, '');
  assert.deepEqual(model.turns[2].media ?? [], []);
  assert.equal(mock.chats.get(id).turns.length, 3);
  assert.deepEqual(settled, ['a', 'b']);
  const sent = mock.state.requests.filter((m) => m.type === 'send' && m.media?.includes(a.media));
  assert.ok(sent.length >= 2);
  assert.equal(new Set(sent.map((m) => m.id)).size, 1);
});

test('files that the server no longer has: the message says so, and comes back whole', async () => {
  const token = await user();
  const client = page(token);
  const id = await client.create('mira');
  client.activate(id);
  const model = client.chat(id);
  const a = await stored(token, 'a');
  mock.media.delete(a.media);
  client.send(id, 'look', [a]);
  await until('the refusal', () => model.outbox[0]?.state === 'failed');
  assert.match(model.outbox[0].note, /no such media/);
  const item = client.discard(id, model.outbox[0].id);
  assert.deepEqual([item.text, item.files, item.filesGone], ['look', [a], true]);
});

test('two pages of one user stay in step', async () => {
  const token = await user();
  const [a, b] = [page(token), page(token)];
  const id = await a.create('mira');
  a.activate(id);
  b.activate(id);
  const [ma, mb] = [a.chat(id), b.chat(id)];
  await until('both', () => mb.loaded);
  a.send(id, 'hello both');
  await until('both replies', () => isDone(ma) && isDone(mb));
  assert.equal(replyOf(mb), 'Mira heard: hello both');
  await b.regenerate(id, last(mb).turn);
  await until('the variant', () => last(ma).variants.length === 2 && isDone(ma) && isDone(mb));
  assert.equal(last(ma).chosen, 1);
  await a.choose(id, last(ma).turn, 0);
  await until('the choice', () => last(mb).chosen === 0);
  await b.edit(id, last(mb).turn, 'edited');
  await until('the edit', () => last(ma).text === 'edited');
  await a.remove(id, last(ma).turn);
  await until('the deletion', () => mb.turns.length === 1);
});

test('what happened to older turns while away comes with the resume', async () => {
  const token = await user();
  const [a, b] = [page(token), page(token)];
  const id = await a.create('mira');
  a.activate(id);
  const ma = a.chat(id);
  for (const text of ['one', 'two', 'three']) {
    a.send(id, text);
    await until(text, () => last(ma).text === text && isDone(ma));
  }
  const ids = ma.turns.map((t) => t.turn);
  a.connection.stop();
  b.activate(id);
  await until('b', () => b.chat(id).loaded);
  await b.edit(id, ids[1], 'ONE');
  await b.remove(id, ids[2]);
  b.send(id, 'four');
  await until('four', () => isDone(b.chat(id)) && last(b.chat(id)).text === 'four');
  a.connection.start();
  await until('a again', () => ma.turns.length === 4 && ma.turns[1].text === 'ONE' && last(ma).text === 'four');
  assert.deepEqual(ma.turns.map((t) => t.text), [null, 'ONE', 'three', 'four']);
});

test('a stop keeps what was written', async () => {
  const client = page(await user());
  const id = await client.create('mira');
  client.activate(id);
  const model = client.chat(id);
  client.send(id, words(100));
  await until('some words', () => (replyOf(model) ?? '').length > 40);
  await client.stop(id, last(model).turn);
  await until('the end', () => isDone(model));
  assert.equal(last(model).variants[0].finish, 'stopped');
  assert.ok(replyOf(model).length > 40 && replyOf(model).length < 600);
});

test('a refusal that passes is waited out, in words; one that does not is said', async () => {
  const client = page(await user());
  const id = await client.create('mira');
  client.activate(id);
  const model = client.chat(id);
  mock.state.refuse = { code: 'rate_limited', message: 'slow down', retry_after_ms: 300 };
  client.send(id, 'patience');
  await until('the note', () => model.outbox[0]?.state === 'waiting');
  assert.match(model.outbox[0].note, /faster/);
  mock.state.refuse = null;
  await until('the reply', () => isDone(model));
  client.send(id, 'x'.repeat(8001));
  await until('the refusal', () => model.outbox[0]?.state === 'failed');
  assert.match(model.outbox[0].note, /8000/);
  assert.equal(client.discard(id, model.outbox[0].id).text.length, 8001);
});

test('scroll-back loads older turns, oldest first, without a double', async () => {
  const client = page(await user());
  const id = await client.create('mira');
  const chat = mock.chats.get(id);
  const base = chat.turns[0];
  for (let i = 0; i < 120; i++)
    chat.turns.push({ ...base, turn: `${base.turn.slice(0, -3)}${(i + 100)}`.replace(/^0/, '1'), text: `m${i}`, variants: base.variants.slice(0, 1) });
  client.forget(id);
  client.activate(id);
  const model = client.chat(id);
  await until('the newest', () => model.loaded);
  assert.equal(model.turns.length, 50);
  assert.equal(model.hasOlder, true);
  assert.equal(await client.older(id), true);
  assert.equal(await client.older(id), true);
  assert.equal(model.turns.length, 121);
  assert.equal(model.hasOlder, false);
  assert.equal(new Set(model.turns.map((t) => t.turn)).size, 121);
});

test('a drained server (1012) and a lost session are come back from', async () => {
  let sessions = 0;
  const token = await user();
  const client = page(token, { session: async () => { sessions++; if (sessions === 2) throw new TroupeError('overloaded', '', 100); } });
  await until('open', () => client.state === 'open');
  mock.close(1012);
  await until('closed', () => client.state !== 'open');
  await until('open again', () => client.state === 'open');
  mock.state.down = true; // the handshake is refused: the session is asked for again
  mock.cut();
  await until('the refusal', () => sessions >= 2);
  mock.state.down = false;
  await until('open at last', () => client.state === 'open');
  assert.ok(sessions >= 3);
});

test('a chat that is not there is gone, not an endless wait', async () => {
  const client = page(await user());
  const id = '01890000-0000-7000-8000-000000000000';
  client.activate(id);
  await until('the news', () => client.chat(id).gone);
});

test('a change whose event was cut off behind `opened` comes with the next resume', async () => {
  const token = await user();
  const client = page(token);
  const other = page(token);
  const id = await client.create('mira');
  const model = client.chat(id);
  client.activate(id);
  client.send(id, 'First');
  await until('the reply', () => isDone(model));
  const turn = last(model).turn;
  other.activate(id);
  await until('the other page', () => isDone(other.chat(id)));
  client.connection.stop();
  await other.edit(id, turn, 'Second');
  mock.state.cutBehindOpened = true; // once: `opened` arrives, what follows it does not
  client.connection.start();
  await until('the change', () => model.find(turn).text === 'Second');
  assert.equal(mock.state.cutBehindOpened, false);
});
