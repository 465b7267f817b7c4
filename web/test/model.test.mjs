// The chat model: events applied once, twice, late and with gaps.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChatModel, countCharacters, inWords, isRunning, utf8Head, utf8Length } from '../node_modules/.cache/protocol.mjs';

const chat = 'c';
const turn = (id, text, variants = [], chosen = 0) => ({ turn: id, chat, text, variants, chosen });
const done = (variant, text) => ({ variant, text, finish: 'stop' });
const opened = (turns, more = {}) => ({ type: 'opened', ref: 'r', chat, character: { id: 'x', name: 'X' }, turns, change: 1, ...more });
const delta = (id, offset, text, more = {}) => ({ type: 'delta', chat, turn: id, variant: 0, attempt: 1, offset, text, ...more });
const reply = (id, text, more = {}) => ({ type: 'reply', chat, turn: id, variant: 0, text, finish: 'stop', ...more });

function fresh(turns = [turn('t1', 'hi')]) {
  let repairs = 0;
  const model = new ChatModel(chat, () => repairs++);
  model.opened(opened(turns), undefined);
  return { model, repairs: () => repairs, text: (i = 0, v = 0) => model.turns[i].variants[v]?.text };
}

test('UTF-8 lengths and cuts', () => {
  assert.equal(utf8Length('aé€😀'), 1 + 2 + 3 + 4);
  assert.equal(utf8Head('aé€😀x', 6), 'aé€');
  assert.equal(utf8Head('aé€😀x', 10), 'aé€😀');
  assert.equal(utf8Head('aé', 2), null, 'splits a character');
  assert.equal(utf8Head('a', 2), null, 'beyond the end');
  assert.equal(countCharacters('e\u0301😀'), 2);
});

test('deltas append by byte offset, over wide characters', () => {
  const { model, text } = fresh();
  model.apply(delta('t1', 0, 'Grüße '));
  model.apply(delta('t1', 8, '😀 '));
  model.apply(delta('t1', 13, 'da'));
  assert.equal(text(), 'Grüße 😀 da');
});

test('a repeated or overlapping delta doubles no word', () => {
  const { model, text } = fresh();
  model.apply(delta('t1', 0, 'one '));
  model.apply(delta('t1', 4, 'two '));
  model.apply(delta('t1', 4, 'two '));
  assert.equal(text(), 'one two ');
  model.apply(delta('t1', 4, 'two three '));
  assert.equal(text(), 'one two three ');
  model.apply(delta('t1', 0, 'one two three four'));
  assert.equal(text(), 'one two three four');
});

test('a gap asks for a repair and changes nothing', () => {
  const { model, text, repairs } = fresh();
  model.apply(delta('t1', 0, 'one '));
  model.apply(delta('t1', 8, 'three '));
  assert.equal(text(), 'one ');
  assert.equal(repairs(), 1);
});

test('a newer attempt begins anew; an older one is dropped', () => {
  const { model, text } = fresh();
  model.apply(delta('t1', 0, 'first try'));
  model.apply(delta('t1', 0, 'second ', { attempt: 2 }));
  model.apply(delta('t1', 9, ' goes on', { attempt: 1 }));
  model.apply(delta('t1', 7, 'try', { attempt: 2 }));
  assert.equal(text(), 'second try');
});

test('a newer attempt whose beginning was missed needs a repair', () => {
  const { model, text, repairs } = fresh();
  model.apply(delta('t1', 0, 'first try'));
  model.apply(delta('t1', 4, 'xx', { attempt: 2 }));
  assert.equal(text(), 'first try');
  assert.equal(repairs(), 1);
});

test('the reply is authoritative; what comes later is dropped', () => {
  const { model, text } = fresh();
  model.apply(delta('t1', 0, 'draft'));
  model.apply(reply('t1', 'the reply'));
  model.apply(delta('t1', 5, ' late'));
  model.apply(reply('t1', 'the reply'));
  model.apply({ type: 'status', chat, turn: 't1', state: 'thinking' });
  assert.equal(text(), 'the reply');
  assert.equal(model.turns[0].variants.length, 1);
  assert.equal(isRunning(model.turns[0]), false);
  assert.equal(model.turns[0].status, null);
});

test('resuming asks from before the first unsettled turn', () => {
  const { model } = fresh([turn('t1', null, [done(0, 'hello')]), turn('t2', 'a'), turn('t3', 'b')]);
  assert.equal(model.resumeAfter(), 't1');
  model.apply(reply('t2', 'A'));
  assert.equal(model.resumeAfter(), 't2');
  model.apply(reply('t3', 'B'));
  assert.equal(model.resumeAfter(), 't3');
});

test('a resume in mid-reply goes on from the listed text, or earlier', () => {
  const { model, text } = fresh([turn('t1', null, [done(0, 'hello')]), turn('t2', 'a')]);
  model.apply(delta('t2', 0, 'one two '));
  model.opened(opened([turn('t2', 'a', [{ variant: 0, text: 'one two three ', finish: null }])]), 't1');
  assert.equal(text(1), 'one two three ');
  assert.equal(text(0), 'hello');
  model.apply(delta('t2', 8, 'three four '));
  assert.equal(text(1), 'one two three four ');
});

test('what was deleted meanwhile goes with a resume', () => {
  const { model } = fresh([turn('t1', null, [done(0, 'hello')]), turn('t2', 'a'), turn('t3', 'b')]);
  model.opened(opened([turn('t3', 'b')]), 't1');
  assert.deepEqual(model.turns.map((t) => t.turn), ['t1', 't3']);
});

test('opening from scratch keeps older turns only while they join', () => {
  const { model } = fresh([turn('t5', 'e', [done(0, 'E')])]);
  model.older([turn('t3', 'c', [done(0, 'C')]), turn('t4', 'd', [done(0, 'D')])], true);
  model.opened(opened([turn('t5', 'e', [done(0, 'E')]), turn('t6', 'f')], { more: true }), undefined);
  assert.deepEqual(model.turns.map((t) => t.turn), ['t3', 't4', 't5', 't6']);
  model.opened(opened([turn('t8', 'h')], { more: true }), undefined); // a gap: the rest comes with the history
  assert.deepEqual(model.turns.map((t) => t.turn), ['t8']);
  assert.equal(model.hasOlder, true);
});

test('events that come before `accepted` wait for their turn', () => {
  const { model, repairs } = fresh([]);
  model.outbox = [{ id: 'm1', text: 'hi', files: [], created: '', sent: true, state: 'sending', note: '', twin: null }];
  model.apply(delta('t9', 0, 'already '));
  model.accepted('m1', 't9');
  assert.equal(model.turns[0].text, 'hi');
  assert.equal(model.turns[0].variants[0].text, 'already ');
  assert.equal(model.outbox.length, 0);
  assert.equal(repairs(), 0);
});

test('a listed turn that is our own message is shown once', () => {
  const { model } = fresh([]);
  model.outbox = [{ id: 'm1', text: 'hi', files: [], created: '', sent: true, state: 'sending', note: '', twin: null }];
  model.opened(opened([turn('t9', 'hi')]), undefined);
  assert.equal(model.outbox[0].twin, 't9');
  model.accepted('m1', 't9');
  assert.equal(model.outbox.length, 0);
  assert.equal(model.turns.length, 1);
});

test('two messages without a word are told apart by their files', () => {
  const { model } = fresh([]);
  const out = (id, media) => ({ id, text: '', files: [{ media, type: 'image/png' }], created: '', sent: true, state: 'sending', note: '', twin: null });
  model.outbox = [out('m1', 'A'), out('m2', 'B')];
  model.opened(opened([{ ...turn('t9', ''), media: ['B'], media_types: ['image/png'] }]), undefined);
  assert.deepEqual(model.outbox.map((o) => o.twin), [null, 't9']);
  assert.equal(isRunning(model.turns[0]), true);
  model.accepted('m1', 't8');
  assert.deepEqual(model.turns.map((t) => t.media), [['A'], ['B']]);
});

test('regenerating: the new variant runs, then is chosen', () => {
  const { model } = fresh([turn('t1', 'hi', [done(0, 'A')])]);
  model.regenerating('t1', 1);
  assert.equal(isRunning(model.turns[0]), true);
  model.apply(delta('t1', 0, 'B', { variant: 1 }));
  // A listing made before the delta does not take its text back.
  model.apply({ type: 'changed', chat, turn: turn('t1', 'hi', [done(0, 'A'), { variant: 1, text: '', finish: null }]) });
  assert.equal(model.turns[0].variants[1].text, 'B');
  model.apply(reply('t1', 'B!', { variant: 1 }));
  assert.equal(model.turns[0].chosen, 1);
  // One made before the reply does not make it run again.
  model.apply({ type: 'changed', chat, turn: turn('t1', 'hi', [done(0, 'A'), { variant: 1, text: 'B', finish: null }]) });
  assert.equal(model.turns[0].variants[1].text, 'B!');
  assert.equal(isRunning(model.turns[0]), false);
});

test('a failed turn says so in words, and is settled', () => {
  const { model } = fresh();
  model.apply({ type: 'error', chat, turn: 't1', code: 'engine_failed', message: 'x' });
  assert.equal(model.turns[0].variants[0].finish, 'error');
  assert.match(model.turns[0].variants[0].message, /could not answer/);
  assert.equal(model.resumeAfter(), 't1');
});

test('a chat deleted elsewhere is gone', () => {
  const { model } = fresh();
  model.apply({ type: 'deleted', chat });
  assert.equal(model.gone, true);
});

test('a full page without `more` may still have older turns', () => {
  const many = Array.from({ length: 50 }, (_, i) => turn(`t${i + 10}`, 'x', [done(0, 'X')]));
  const { model } = fresh(many);
  assert.equal(model.hasOlder, true);
});

test('deleted turns go, and errors have words', () => {
  const { model } = fresh([turn('t1', 'a'), turn('t2', 'b')]);
  model.apply({ type: 'deleted', chat, turn: 't1' });
  assert.deepEqual(model.turns.map((t) => t.turn), ['t2']);
  for (const code of ['bad_request', 'unauthorized', 'not_found', 'too_large', 'rate_limited', 'overloaded', 'engine_failed', 'internal', 'conflict'])
    assert.doesNotMatch(inWords(code), /_/);
  assert.match(inWords('rate_limited', '', 3000), /3 seconds/);
});
