// The tray of files that wait for their message: what is taken, in which order, and what a refusal does.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { webcrypto } from 'node:crypto';
import { MEDIA_MAX, Tray, TroupeError, kindOf, sizeInWords } from '../node_modules/.cache/protocol.mjs';

globalThis.crypto ??= webcrypto; // Node 18

const file = (name, type = 'image/png', size = 100) => ({ name, type, size });
const names = (tray) => tray.items.map((i) => i.name);
const states = (tray) => tray.items.map((i) => i.state);
const turns = () => new Promise((r) => setTimeout(r));

/** A tray whose files travel when the test says so. */
function fresh() {
  const ways = []; // {file, progress, stored(), refused(), aborted}
  const removed = [];
  const shown = new Set();
  const said = [];
  let n = 0;
  const tray = new Tray({
    send: (f, progress) => {
      const way = { file: f, progress, aborted: false };
      const done = new Promise((resolve, reject) => {
        way.stored = async (type = f.type) => { resolve({ media: `id-${f.name}`, type, bytes: f.size }); await turns(); };
        way.refused = async (code, message = '', wait = 0) => { reject(new TroupeError(code, message, wait)); await turns(); };
      });
      ways.push(way);
      return { done, abort: () => { way.aborted = true; void way.refused('lost'); } };
    },
    remove: async (id) => { removed.push(id); },
    preview: (f) => { const address = `blob:${f.name}${n++}`; shown.add(address); return address; },
    unpreview: (address) => assert.ok(shown.delete(address), 'given back once'),
  }, () => {}, (words) => said.push(words));
  return { tray, ways, removed, shown, said, way: (name) => ways.filter((w) => w.file.name === name).at(-1) };
}

test('two at a time, in order; the message waits for all of them', async () => {
  const { tray, ways, way } = fresh();
  tray.add([file('a'), file('b'), file('c')]);
  assert.deepEqual(states(tray), ['sending', 'sending', 'queued']);
  assert.match(tray.hindrance, /3 files are on the way/);
  way('a').progress(0.5);
  assert.equal(tray.items[0].share, 0.5);
  await way('a').stored();
  assert.deepEqual(states(tray), ['stored', 'sending', 'sending']);
  way('a').progress(0.7);
  assert.equal(tray.items[0].share, 1, 'late progress says nothing');
  await way('b').stored();
  assert.match(tray.hindrance, /^A file is on the way/);
  await way('c').stored('image/webp'); // the server tells the type by content
  assert.equal(tray.hindrance, '');
  assert.equal(ways.length, 3);
  const taken = tray.take();
  assert.deepEqual(taken.map((i) => i.media), ['id-a', 'id-b', 'id-c']);
  assert.equal(taken[2].type, 'image/webp');
  assert.deepEqual(tray.items, []);
});

test('what is none of ours, empty, or one too many is said and not sent', () => {
  const { tray, ways, said } = fresh();
  tray.add([file('notes.pdf', 'application/pdf'), file('void.png', 'image/png', 0), file('unknown', '')]);
  assert.deepEqual(names(tray), ['unknown'], 'what the browser has no name for the server looks at');
  assert.match(said[0], /^notes\.pdf: only pictures, sound and video/);
  assert.match(said[1], /void\.png is empty/);
  tray.add(Array.from({ length: MEDIA_MAX }, (_, i) => file(`n${i}`)));
  assert.equal(tray.items.length, MEDIA_MAX);
  assert.match(said[2], /8 files at most; one was left out/);
  tray.add([file('x'), file('y')]);
  assert.match(said[3], /2 were left out/);
  assert.equal(ways.length, 2);
});

test('removed: on its way it is cut, stored it is forgotten, and its picture is given back', async () => {
  const { tray, way, removed, shown } = fresh();
  tray.add([file('a'), file('b'), file('c')]);
  await way('a').stored();
  const [a, b, c] = tray.items.map((i) => i.key);
  tray.remove(b);
  await turns();
  assert.ok(way('b').aborted);
  assert.deepEqual(removed, []);
  tray.remove(a);
  assert.deepEqual(removed, ['id-a']);
  assert.deepEqual(names(tray), ['c']);
  assert.equal(shown.size, 1);
  // The server was faster than the hand that took it back.
  const late = way('c');
  tray.remove(c);
  assert.ok(late.aborted);
  assert.equal(shown.size, 0);
  tray.remove('nothing');
});

test('an answer that crosses the removal is forgotten at the server, too', async () => {
  const removed = [];
  let resolve;
  const tray = new Tray({
    send: () => ({ done: new Promise((r) => { resolve = r; }), abort: () => {} }),
    remove: async (id) => { removed.push(id); },
  }, () => {});
  tray.add([file('a')]);
  tray.remove(tray.items[0].key);
  resolve({ media: 'late', type: 'image/png', bytes: 1 });
  await turns();
  assert.deepEqual(removed, ['late']);
  assert.deepEqual(tray.items, []);
});

test('a refusal for good is said in words, and tried again only by hand', async () => {
  const { tray, ways, way } = fresh();
  tray.add([file('a'), file('b')]);
  await way('a').refused('too_large', 'body: the file is larger than 32 MiB');
  assert.equal(tray.items[0].note, 'The file is larger than 32 MiB.');
  await way('b').refused('bad_request', 'body: not a PNG, JPEG, GIF or WebP picture');
  assert.equal(tray.items[1].note, 'This is not a PNG, JPEG, GIF or WebP picture.');
  assert.match(tray.hindrance, /^2 files did not get through/);
  tray.remove(tray.items[1].key);
  assert.match(tray.hindrance, /^One file did not/);
  assert.equal(ways.length, 2);
  tray.again(tray.items[0].key);
  assert.deepEqual(states(tray), ['sending']);
  assert.equal(tray.items[0].note, '');
  await way('a').stored();
  assert.equal(tray.hindrance, '');
});

/** A clock that goes on when the test says so. */
function stopClock(t) {
  const real = [globalThis.setTimeout, globalThis.clearTimeout];
  t.after(() => { [globalThis.setTimeout, globalThis.clearTimeout] = real; });
  let now = 0;
  const timers = new Map();
  globalThis.setTimeout = (call, ms) => { const id = timers.size + 1; timers.set(id, { call, at: now + ms }); return id; };
  globalThis.clearTimeout = (id) => { if (timers.has(id)) timers.get(id).call = () => {}; };
  return (ms) => {
    now += ms;
    for (const timer of timers.values()) if (timer.at <= now) { const { call } = timer; timer.call = () => {}; call(); }
  };
}

const settle = async () => { for (let i = 0; i < 20; i++) await Promise.resolve(); };

test('429: waits as long as it was told to, then goes on by itself', async (t) => {
  const tick = stopClock(t);
  const { tray, ways, way } = fresh();
  tray.add([file('a')]);
  for (let i = 1; i <= 8; i++) { // more often than a failure may pass: this is none
    void way('a').refused('rate_limited', 'x', 7000);
    await settle();
    assert.deepEqual(states(tray), ['waiting']);
    assert.match(tray.items[0].note, /in 7 seconds/);
    tick(6999);
    assert.equal(ways.length, i);
    tick(1);
    assert.equal(ways.length, i + 1);
  }
});

test('a lost connection is tried again with longer pauses, but not for ever', async (t) => {
  const tick = stopClock(t);
  const { tray, ways, way } = fresh();
  tray.add([file('a')]);
  for (let i = 0; i < 5; i++) {
    void way('a').refused('lost');
    await settle();
    assert.deepEqual(states(tray), ['waiting']);
    tick(2000 * 2 ** i - 1);
    assert.equal(ways.length, i + 1);
    tick(1);
    assert.equal(ways.length, i + 2);
  }
  void way('a').refused('lost');
  await settle();
  assert.deepEqual(states(tray), ['failed']);
  assert.match(tray.items[0].note, /connection was lost/);
});

test('offline: waits for the network, whatever else waits keeps its pause', async () => {
  const { tray, ways, way } = fresh();
  tray.add([file('a'), file('b')]);
  await way('a').refused('offline');
  await way('b').refused('overloaded', '', 60_000);
  assert.match(tray.items[0].note, /offline.*back/);
  tray.hurry();
  assert.deepEqual(states(tray), ['sending', 'waiting']);
  assert.equal(ways.length, 3);
  tray.clear();
});

test('a message that is taken back brings its files along; those that are gone are sent anew', async () => {
  const { tray, ways, way, shown } = fresh();
  tray.add([file('a')]);
  await way('a').stored();
  const taken = tray.take();
  tray.add([file('b')]);
  tray.putBack(taken, false);
  assert.deepEqual(names(tray), ['a', 'b']);
  assert.equal(tray.items[0].media, 'id-a');
  assert.equal(ways.length, 2, 'a is there already');
  await way('b').stored();
  tray.putBack(tray.take(), true);
  assert.equal(ways.length, 4, 'both again');
  assert.deepEqual(states(tray), ['sending', 'sending']);
  tray.clear();
  assert.equal(shown.size, 0);
});

test('what was attached while a message was on its way, and has no room when it comes back, goes and is told', async () => {
  const { tray, removed, shown, said, way } = fresh();
  tray.add(['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((n) => file(n)));
  for (const n of 'abcdefg') await way(n).stored();
  const taken = tray.take();
  tray.add(['v', 'w', 'x', 'y'].map((n) => file(n)));
  await way('w').stored();
  await way('v').stored();
  assert.deepEqual(states(tray), ['stored', 'stored', 'sending', 'sending']);
  tray.putBack(taken, false);
  assert.deepEqual(names(tray), ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'v']);
  assert.deepEqual(removed, ['id-w'], 'the server forgets what was stored');
  assert.ok(way('x').aborted && way('y').aborted, 'the others are cut');
  assert.match(said.at(-1), /8 files at most; 3 were left out/);
  assert.equal(shown.size, 8);
  await turns();
  tray.clear();
  assert.equal(shown.size, 0);
});

test('kinds and sizes', () => {
  assert.deepEqual(['image/png', 'audio/x-wav', 'video/mp4', 'application/ogg', 'text/html', undefined].map(kindOf),
    ['image', 'audio', 'video', 'audio', 'other', 'other']);
  assert.deepEqual([1, 1023, 1024, 1536, 20 << 20, 3 * 2 ** 30].map(sizeInWords), ['1 byte', '1023 bytes', '1.0 KiB', '1.5 KiB', '20 MiB', '3.0 GiB']);
});
