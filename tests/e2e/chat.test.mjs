// The chat page in a real browser, against a running server.
//
//   TROUPE_E2E_URL       the server's base URL (its engine: stub:?delay_ms=200&gap_ms=50)
//   TROUPE_E2E_BINARY    the program, for the test that kills and starts one of its own; unset: that test is skipped
//   TROUPE_E2E_SHOTS     a folder for screenshots; unset: none
//   TROUPE_E2E_CHROMIUM  the browser; /usr/bin/chromium if unset
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  base, begin, field, lastReply, ownServer, say, shot, someWords, sound, stopButton, tab, until, visitor, wholeReply, words, wordsOf,
} from './helpers.mjs';

test('a whole chat: a character, a greeting, a message, a reply, the list', async () => {
  const context = await visitor();
  const page = await tab(context);
  await page.getByRole('button', { name: /^Begin a chat with/ }).first().waitFor();
  await shot(page, 'home');
  await page.close();
  const chat = await begin(context);
  await say(chat, 'Good evening to you');
  await wholeReply(chat, 'Good evening to you');
  await shot(chat, 'chat');
  await say(chat, 'And a second thing');
  await wholeReply(chat, 'And a second thing');
  assert.equal(await chat.locator('.mine .bubble').count(), 2);
  assert.equal(await chat.locator('.side .chat-link').count(), 1);
  const spoken = await chat.locator('[aria-live=polite].unseen').first().innerText();
  assert.match(spoken, /And a second thing/, 'a screen reader hears the whole reply');
  sound(chat);
});

test('a reload in mid-reply: no word lost, none doubled', async () => {
  const page = await begin(await visitor());
  const text = words(70);
  await say(page, text);
  await someWords(page);
  await page.reload();
  const soFar = await someWords(page);
  assert.match(soFar, /^\S+ heard: word0 word1/);
  await wholeReply(page, text);
  assert.equal(await page.locator('.mine .bubble').count(), 1);
  sound(page);
});

test('two tabs stay in step', async () => {
  const context = await visitor();
  const one = await begin(context);
  const two = await tab(context, `/${new URL(one.url()).hash}`);
  await two.locator('.turn .reply .prose').first().waitFor();
  await say(one, words(20, 'left'));
  await until(() => two.locator('.mine .bubble').count(), (n) => n === 1, 'the message in the other tab');
  await wholeReply(two, words(20, 'left'));
  await wholeReply(one, words(20, 'left'));
  await say(two, 'and back');
  await wholeReply(one, 'and back');
  assert.equal(await one.locator('.mine .bubble').count(), 2);
  assert.equal(await two.locator('.mine .bubble').count(), 2);
  sound(one);
  sound(two);
});

test('Stop keeps the text so far', async () => {
  const page = await begin(await visitor());
  const text = words(200);
  await say(page, text);
  await someWords(page, 60);
  await shot(page, 'writing');
  await stopButton(page).click();
  await page.getByText('You stopped here.').waitFor();
  const kept = await wordsOf(page);
  assert.ok(kept.length >= 60 && kept.length < text.length, `kept ${kept.length} characters`);
  assert.ok(text.startsWith(kept.replace(/^.*? heard: /, '').replace(/\s*\S+$/, '')), 'what is kept is the beginning');
  await page.reload();
  await page.getByText('You stopped here.').waitFor();
  assert.equal(await wordsOf(page), kept);
  await say(page, 'go on');
  await wholeReply(page, 'go on');
  sound(page);
});

test('regenerate, and leaf through the variants', async () => {
  const page = await begin(await visitor());
  await say(page, 'Once more');
  await wholeReply(page, 'Once more');
  const turn = page.locator('.turn').last();
  await turn.getByRole('button', { name: 'Regenerate the reply' }).click();
  await turn.locator('.leaf-count', { hasText: '2/2' }).waitFor();
  await wholeReply(page, 'Once more');
  await turn.getByRole('button', { name: 'Previous variant' }).click();
  await turn.locator('.leaf-count', { hasText: '1/2' }).waitFor();
  await page.waitForTimeout(300);
  await page.reload();
  await turn.locator('.leaf-count', { hasText: '1/2' }).waitFor(); // the choice is kept
  await turn.getByRole('button', { name: 'Next variant' }).focus();
  await page.keyboard.press('ArrowRight');
  await turn.locator('.leaf-count', { hasText: '2/2' }).waitFor();
  await shot(page, 'variants');
  sound(page);
});

test('edit a message: it says what that means, and a new reply hears it', async () => {
  const page = await begin(await visitor());
  await say(page, 'first thought');
  await wholeReply(page, 'first thought');
  const turn = page.locator('.turn').last();
  await turn.hover();
  await turn.getByRole('button', { name: 'Edit your message' }).click();
  const editor = turn.getByRole('textbox', { name: 'Edit your message' });
  await editor.fill('never mind');
  await editor.press('Escape');
  await turn.locator('.bubble').getByText('first thought', { exact: true }).waitFor();
  await turn.getByRole('button', { name: 'Edit your message' }).click();
  await editor.fill('second thought');
  await shot(page, 'editing');
  await editor.press('Enter');
  await turn.getByText('It counts for later replies').waitFor();
  await turn.locator('.bubble').getByText('second thought', { exact: true }).waitFor();
  await turn.getByRole('button', { name: 'Have this one answered anew' }).click();
  await turn.locator('.leaf-count', { hasText: '2/2' }).waitFor();
  await wholeReply(page, 'second thought');
  sound(page);
});

test('delete a turn, then the chat', async () => {
  const context = await visitor();
  const page = await begin(context);
  await say(page, 'to be forgotten');
  await wholeReply(page, 'to be forgotten');
  await say(page, 'to be kept');
  await wholeReply(page, 'to be kept');
  const other = await tab(context, `/${new URL(page.url()).hash}`);
  await other.getByText('to be kept', { exact: true }).waitFor();
  await page.bringToFront(); // a tab behind gets few frames
  const turn = page.locator('.turn', { hasText: 'to be forgotten' });
  await turn.hover();
  await turn.getByRole('button', { name: 'Delete this turn' }).click();
  await shot(page, 'delete');
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  for (const p of [page, other])
    await until(() => p.locator('.mine .bubble').count(), (n) => n === 1, 'the turn to go');
  await page.reload();
  await page.getByText('to be kept', { exact: true }).waitFor();
  assert.equal(await page.getByText('to be forgotten').count(), 0);
  await page.getByRole('button', { name: 'Delete this chat' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete the chat' }).click();
  await page.getByRole('heading', { name: 'Who shall we talk to?' }).waitFor();
  await until(() => page.locator('.side .chat-link').count(), (n) => n === 0, 'the chat to go');
  sound(page);
});

test('phone width: nothing scrolls sideways, and the composer is in view', async () => {
  for (const scheme of ['light', 'dark']) {
    const context = await visitor({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: scheme });
    const home = await tab(context);
    await home.getByRole('button', { name: /^Begin a chat with/ }).first().waitFor();
    const wide = (p) => p.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
    assert.ok((await wide(home)) <= 0, 'the first view fits');
    await shot(home, `phone-home-${scheme}`);
    const page = await begin(context);
    const text = `${words(40)} ${'verylongword'.repeat(20)}`;
    await say(page, text);
    await wholeReply(page, text);
    assert.ok((await wide(page)) <= 0, 'the chat fits');
    const box = await field(page).boundingBox();
    assert.ok(box.y > 0 && box.y + box.height <= 844, 'the composer is in view');
    await page.setViewportSize({ width: 390, height: 440 }); // a keyboard came up
    const small = await until(() => field(page).boundingBox(), (b) => b.y + b.height <= 440, 'the composer above the keyboard');
    assert.ok(small.y > 100);
    await page.setViewportSize({ width: 390, height: 844 });
    await shot(page, `phone-chat-${scheme}`);
    await page.getByRole('link', { name: 'Back to the company' }).click();
    await page.getByRole('navigation', { name: 'Go on with' }).waitFor();
    sound(page);
  }
});

test('the keyboard alone is enough', async () => {
  const page = await tab(await visitor());
  await page.getByRole('button', { name: /^Begin a chat with/ }).first().waitFor();
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.id ?? '');
  for (let i = 0; i < 20 && !(await focused()).startsWith('Begin a chat'); i++) await page.keyboard.press('Tab');
  assert.match(await focused(), /^Begin a chat/);
  await page.keyboard.press('Enter');
  await page.locator('.turn .reply .prose').first().waitFor();
  await until(focused, (f) => f === 'message', 'the composer to have the focus');
  await page.keyboard.type('line one');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('line two');
  await page.keyboard.press('Enter');
  await wholeReply(page, 'line one line two');
  assert.equal(await field(page).inputValue(), '');
  await page.keyboard.type(words(150));
  await page.keyboard.press('Enter');
  await someWords(page, 50);
  await page.keyboard.press('Escape');
  await page.getByText('You stopped here.').waitFor();
  sound(page);
});

test('a cut connection resumes; what was written meanwhile goes out once', async () => {
  const page = await begin(await visitor());
  const text = words(70, 'cut');
  await say(page, text);
  await someWords(page);
  for (let i = 0; i < 2; i++) {
    await page.evaluate(() => window.__held.sockets.at(-1).close());
    await page.waitForTimeout(700);
  }
  await wholeReply(page, text);
  await page.evaluate(() => { window.__held.down = true; window.__held.sockets.at(-1).close(); });
  await page.locator('.banner').waitFor();
  await say(page, 'written in the dark');
  await page.locator('.mine.waiting, .mine.sending').waitFor();
  const edges = await page.evaluate(() => [...document.querySelectorAll('.mine .bubble')].map((b) => Math.round(b.getBoundingClientRect().right)));
  assert.equal(edges.at(-1), edges.at(-2), 'it stands where the others stand');
  await shot(page, 'offline');
  await page.evaluate(() => { window.__held.down = false; });
  // It may come back by itself before the button is reached.
  await page.getByRole('button', { name: 'Try now' }).click({ timeout: 2000 }).catch(() => {});
  await wholeReply(page, 'written in the dark');
  assert.equal(await page.locator('.mine .bubble').count(), 2);
  assert.equal(await page.locator('.banner').count(), 0);
  sound(page);
});

test('the server is killed in mid-reply and starts again: no word lost, none doubled', {
  skip: process.env.TROUPE_E2E_BINARY ? false : 'TROUPE_E2E_BINARY is not set',
}, async () => {
  const server = await ownServer('stub:?delay_ms=150&gap_ms=60');
  const page = await begin(await visitor({ at: server.url }));
  const text = words(60, 'kill');
  await say(page, text);
  await someWords(page);
  // From here on every state of the reply that is drawn is looked at.
  await page.evaluate(() => {
    window.__drawn = new Set();
    const look = () => window.__drawn.add([...document.querySelectorAll('.reply .prose')].at(-1)?.textContent.trim() ?? '');
    new MutationObserver(look).observe(document.querySelector('.turns'), { childList: true, subtree: true, characterData: true });
  });
  await server.kill();
  await page.locator('.banner').waitFor();
  await say(page, 'while it was down'); // stays here, and goes out once
  await server.start();
  await until(() => page.locator('.banner').count(), (n) => n === 0, 'the connection to come back', 30_000);
  await wholeReply(page, 'while it was down', 60_000);
  const whole = await page.locator('.turn').nth(1).locator('.reply .prose').innerText();
  assert.match(whole, / heard: kill0 /);
  assert.equal(whole.replace(/^.*? heard: /, ''), text);
  const drawn = (await page.evaluate(() => [...window.__drawn])).filter((d) => d.includes('kill'));
  for (const d of drawn) assert.ok(whole.startsWith(d), `drawn: ${d}`);
  assert.equal(await page.locator('.mine .bubble').count(), 2);
  await page.reload();
  await lastReply(page).waitFor();
  assert.equal(await page.locator('.mine .bubble').count(), 2);
  assert.equal(await page.locator('.reply .prose').count(), 3); // the greeting and the two replies
  await server.kill();
  await server.start();
  await until(() => page.locator('.banner').count(), (n) => n === 0, 'the connection to come back', 30_000);
  await say(page, 'still the same visitor');
  await wholeReply(page, 'still the same visitor');
  assert.equal(await page.locator('.mine .bubble').count(), 3);
  sound(page);
});

test('markup in a message is inert, in Markdown too', async () => {
  const page = await begin(await visitor());
  const outside = [];
  page.on('request', (r) => !r.url().startsWith(new URL(base).origin) && outside.push(r.url()));
  const evil = [
    '<img src=x onerror="window.__hit=1">', '<script>window.__hit=1</script>', '<svg/onload=window.__hit=1>',
    '[click](javascript:window.__hit=1)', '![pixel](https://example.invalid/p.png)', '<a href="javascript:window.__hit=1">a</a>',
    '<iframe src="https://example.invalid/"></iframe>', '<b style="position:fixed">b</b>', '**bold**',
  ].join(' ');
  await say(page, evil);
  await page.locator('.turn').last().locator('.reply:not(.writing) .prose strong').waitFor();
  const found = await page.evaluate(() => {
    const prose = [...document.querySelectorAll('.prose')].at(-1);
    const hrefs = [...document.querySelectorAll('.turns a')].map((a) => a.getAttribute('href') ?? '');
    return {
      hit: window.__hit,
      elements: document.querySelectorAll('.turns :is(script, iframe, svg[onload], .prose img, .bubble *, [style], [onerror])').length,
      unsafe: hrefs.filter((h) => !/^https?:/.test(h) && h !== ''),
      text: prose.textContent,
    };
  });
  assert.equal(found.hit, undefined);
  assert.equal(found.elements, 0);
  assert.deepEqual(found.unsafe, []);
  assert.match(found.text, /<script>/, 'raw HTML is shown as the text it is');
  assert.deepEqual(outside, [], 'nothing is loaded from elsewhere');
  await shot(page, 'inert');
  sound(page);
});

test('errors come in words', async () => {
  const context = await visitor();
  const page = await begin(context);
  // Too long: said before it is sent.
  await field(page).fill('x'.repeat(8003));
  await page.getByText('3 characters too many').waitFor();
  assert.equal(await page.getByRole('button', { name: 'Send', exact: true }).isDisabled(), true);
  await field(page).fill('x'.repeat(7990));
  await page.getByText('10 characters left').waitFor();
  await field(page).fill('');
  // An error for the whole connection, as the server would send it.
  await page.evaluate(() => {
    const data = JSON.stringify({ type: 'error', code: 'overloaded', message: 'x', retry_after_ms: 3000 });
    window.__held.sockets.at(-1).dispatchEvent(new MessageEvent('message', { data }));
  });
  await page.getByText('Try again in 3 seconds').waitFor();
  await shot(page, 'errors');
  // A chat that is not there.
  const gone = await tab(context, '/#/chat/01890000-0000-7000-8000-000000000000');
  await gone.getByText('This chat is not here').waitFor();
  await shot(gone, 'gone');
  // A list that can't be loaded.
  const full = await context.newPage();
  await full.route('**/api/characters', (route) => route.fulfill({ status: 503, headers: { 'retry-after': '5' }, body: 'busy' }));
  await full.goto(base);
  await full.getByText('Try again in 5 seconds').waitFor();
  await full.unroute('**/api/characters');
  await full.getByRole('button', { name: 'Try again' }).click();
  await full.getByRole('button', { name: /^Begin a chat with/ }).first().waitFor();
  sound(page);
});

test('while others are served first, it says at which place one waits', async () => {
  const page = await begin(await visitor());
  await say(page, words(30));
  // The stub engine has no queue, so the status is put in as the server would send it.
  const seen = await page.evaluate(async () => {
    const socket = window.__held.sockets.at(-1);
    for (let i = 0; i < 200; i++) {
      const turn = [...document.querySelectorAll('.turn[data-turn]')].at(-1);
      const chat = location.hash.slice('#/chat/'.length);
      if (turn?.querySelector('.waiting')) {
        const data = JSON.stringify({ type: 'status', chat, turn: turn.dataset.turn, state: 'queued', position: 3 });
        socket.dispatchEvent(new MessageEvent('message', { data }));
        for (let f = 0; f < 2; f++) await new Promise((r) => requestAnimationFrame(r));
        if (turn.querySelector('.waiting')?.textContent.includes('Waiting, place 3')) return true;
      }
      await new Promise((r) => setTimeout(r, 10));
    }
    return false;
  });
  assert.ok(seen);
  await wholeReply(page, words(30));
  sound(page);
});

test('light and dark: the system decides, the person may differ', async () => {
  const page = await begin(await visitor({ colorScheme: 'dark' }));
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await paper();
  await shot(page, 'dark');
  await page.getByRole('button', { name: 'Light colours' }).click();
  assert.notEqual(await paper(), dark);
  await page.reload();
  await page.getByRole('button', { name: 'Dark colours' }).waitFor();
  assert.notEqual(await paper(), dark);
  sound(page);
});

test('a long chat: it opens at its end, scrolls back, and stays where it is read', async () => {
  const page = await begin(await visitor());
  for (let i = 0; i < 8; i++) await say(page, `${words(12, `m${i}w`)}`);
  await until(() => page.locator('.turn .reply:not(.writing)').count(), (n) => n === 9, 'all the replies', 60_000);
  await wholeReply(page, words(12, 'm7w'));
  const order = await page.locator('.mine .bubble').allInnerTexts();
  assert.deepEqual(order.map((t) => t.split(' ')[0]), Array.from({ length: 8 }, (_, i) => `m${i}w0`));
  const stage = page.getByRole('region', { name: 'The conversation' });
  const fromEnd = () => stage.evaluate((e) => e.scrollHeight - e.scrollTop - e.clientHeight);
  assert.ok((await fromEnd()) < 60, 'it follows what is written');
  await stage.evaluate((e) => { e.scrollTop = 0; });
  await page.getByRole('button', { name: 'To the newest' }).waitFor();
  // In another tab the chat goes on; here the reader is not moved.
  const other = await tab(page.context(), `/${new URL(page.url()).hash}`);
  await say(other, 'from the other tab');
  await page.getByRole('button', { name: 'New messages' }).waitFor();
  assert.equal(await stage.evaluate((e) => e.scrollTop), 0);
  await shot(page, 'scrolled-back');
  await page.getByRole('button', { name: 'New messages' }).click();
  await until(fromEnd, (d) => d < 60, 'the end');
  sound(page);
});
