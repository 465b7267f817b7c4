// Pictures, sound and video in a real browser: attached, sent, shown, played, refused.  Variables: see chat.test.mjs.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deflateSync } from 'node:zlib';
import { base, begin, field, ownServer, say, shot, sound, tab, until, visitor, wholeReply } from './helpers.mjs';

// --- files, made here ----------------------------------------------------------

function crc32(data) {
  let crc = ~0;
  for (const byte of data) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** A picture: a sky that goes over into a sea. */
function png(width = 320, height = 240, hue = 0) {
  const rows = Buffer.alloc((width * 3 + 1) * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      rows.set([(60 + hue + (x * 120) / width) & 255, (110 + (y * 90) / height) & 255, (190 - (y * 110) / height + hue) & 255], y * (width * 3 + 1) + 1 + x * 3);
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const out = Buffer.alloc(body.length + 8);
    out.writeUInt32BE(data.length, 0);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), body.length + 4);
    return out;
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', head), chunk('IDAT', deflateSync(rows)), chunk('IEND', Buffer.alloc(0))]);
}

/** A tone, 16 bits, one channel, 44.1 kHz: 88,200 bytes a second. */
function wav(seconds) {
  const n = 44100 * seconds;
  const out = Buffer.alloc(44 + n * 2);
  out.write('RIFF', 0);
  out.writeUInt32LE(36 + n * 2, 4);
  out.write('WAVEfmt ', 8);
  out.writeUInt32LE(16, 16);
  out.writeUInt16LE(1, 20);
  out.writeUInt16LE(1, 22);
  out.writeUInt32LE(44100, 24);
  out.writeUInt32LE(88200, 28);
  out.writeUInt16LE(2, 32);
  out.writeUInt16LE(16, 34);
  out.write('data', 36);
  out.writeUInt32LE(n * 2, 40);
  for (let i = 0; i < n; i++) out.writeInt16LE(Math.round(8000 * Math.sin((i * 2 * Math.PI * 440) / 44100)), 44 + i * 2);
  return out;
}

const file = (name, mimeType, buffer) => ({ name, mimeType, buffer });
const picture = (name = 'harbour.png', ...size) => file(name, 'image/png', png(...size));

// --- what is looked at -----------------------------------------------------------

const chips = (page) => page.locator('.foot .chip');
const sendButton = (page) => page.getByRole('button', { name: 'Send', exact: true });
const lastMine = (page) => page.locator('.turn[data-turn]').last().locator('.mine');
const alone = (kinds) => `[The user attached ${kinds}.]`;

async function attach(page, files, stored = [files].flat().length) {
  const chooser = page.waitForEvent('filechooser');
  await page.getByRole('button', { name: 'Attach pictures, sound or video' }).click();
  await (await chooser).setFiles(files);
  await until(() => page.locator('.foot .chip.stored').count(), (n) => n >= stored, 'the files to be stored');
}

/** The width that the picture itself has, once it is there. */
const natural = (page, n = 0) => until(
  () => page.locator('.turn[data-turn] .picture img').nth(n).evaluate((i) => (i.complete ? i.naturalWidth : -1)).catch(() => -1), (w) => w > 0, 'the picture');

/** Requests about media, as "METHOD status". */
function watchMedia(page) {
  const seen = [];
  page.on('response', (r) => r.url().includes('/api/media') && seen.push({ method: r.request().method(), status: r.status(), url: r.url() }));
  return seen;
}

/** Drop files onto the chat, as the system would hand them over. */
const drop = (page, files, kinds = ['dragenter', 'dragover', 'drop'], at = '.stage') => page.evaluate(([list, events, where]) => {
  const data = new DataTransfer();
  for (const f of list) data.items.add(new File([Uint8Array.from(atob(f.bytes), (c) => c.charCodeAt(0))], f.name, { type: f.type }));
  const target = document.querySelector(where);
  return events.map((kind) => target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true })));
}, [files.map((f) => ({ name: f.name, type: f.mimeType, bytes: f.buffer.toString('base64') })), kinds, at]);

// --- tests -----------------------------------------------------------------------

test('a picture by the button: a chip, the message with it, there after a reload and in full', async () => {
  const page = await begin(await visitor());
  const seen = watchMedia(page);
  assert.equal(await sendButton(page).isDisabled(), true);
  await attach(page, picture('harbour.png', 900, 600));
  await chips(page).getByText('harbour.png').waitFor();
  assert.ok(await chips(page).locator('.thumb img').evaluate((i) => i.naturalWidth === 900), 'a thumbnail');
  assert.match(await chips(page).innerText(), /\d (bytes|KiB)/);
  await field(page).fill('Where is this?');
  await shot(page, 'media-attached');
  await field(page).press('Enter');
  await wholeReply(page, 'Where is this?');
  assert.equal(await chips(page).count(), 0);
  assert.equal(await natural(page), 900);
  assert.equal(await lastMine(page).locator('.bubble').innerText(), 'Where is this?');
  await shot(page, 'media-picture');
  await page.reload();
  assert.equal(await natural(page), 900);
  assert.equal(seen.filter((s) => s.method === 'POST').length, 1, 'sent once');
  // By the keyboard: open, and close again.
  const tile = page.getByRole('button', { name: 'Picture: show all of it' });
  await tile.focus();
  await page.keyboard.press('Enter');
  const viewer = page.getByRole('dialog', { name: 'Picture' });
  assert.equal(await viewer.locator('img').evaluate((i) => i.naturalWidth), 900);
  await shot(page, 'media-viewer');
  await page.keyboard.press('Escape');
  await viewer.waitFor({ state: 'detached' });
  assert.ok(await tile.evaluate((e) => e === document.activeElement), 'the focus is back');
  await tile.click();
  await viewer.getByRole('button', { name: 'Close' }).click();
  await viewer.waitFor({ state: 'detached' });
  sound(page);
});

test('pictures alone, without a word; then the words are added, and taken away', async () => {
  const page = await begin(await visitor());
  await attach(page, [picture('one.png'), picture('two.png', 320, 240, 60), picture('three.png', 20, 20)]);
  await sendButton(page).click();
  await wholeReply(page, alone('3 images'));
  assert.equal(await lastMine(page).locator('.bubble').count(), 0, 'no empty bubble');
  for (const [n, width] of [[0, 320], [1, 320], [2, 20]]) assert.equal(await natural(page, n), width);
  await page.getByRole('button', { name: 'Picture 2 of 3: show all of it' }).waitFor();
  await shot(page, 'media-three');
  await lastMine(page).hover();
  await page.getByRole('button', { name: 'Edit your message' }).click();
  await page.getByRole('textbox', { name: 'Edit your message' }).fill('three of them');
  await page.getByRole('button', { name: 'Save' }).click();
  await lastMine(page).locator('.bubble').getByText('three of them').waitFor();
  await lastMine(page).hover();
  await page.getByRole('button', { name: 'Edit your message' }).click();
  await page.getByRole('textbox', { name: 'Edit your message' }).fill('');
  await page.getByRole('button', { name: 'Save' }).click();
  await until(() => lastMine(page).locator('.bubble').count(), (n) => n === 0, 'the words to go');
  await page.reload();
  await natural(page, 2);
  assert.equal(await lastMine(page).locator('.bubble').count(), 0);
  sound(page);
});

test('sound plays and seeks, by parts of the file', async () => {
  const page = await begin(await visitor());
  const seen = watchMedia(page);
  await attach(page, file('tone.wav', 'audio/wav', wav(60))); // 5 MiB: more than is read ahead at once
  await shot(page, 'media-sound-attached');
  await say(page, 'Listen');
  await wholeReply(page, 'Listen');
  const player = page.locator('.turn[data-turn] audio');
  await until(() => player.evaluate((a) => a.duration), (d) => Math.abs(d - 60) < 0.5, 'its length');
  assert.ok(await player.evaluate((a) => a.controls && a.preload === 'metadata'));
  const at = await player.evaluate((a) => new Promise((resolve, reject) => {
    a.onseeked = () => resolve(a.currentTime);
    a.onerror = () => reject(new Error(a.error?.message));
    a.currentTime = 50;
  }));
  assert.equal(at, 50);
  await player.evaluate((a) => { a.muted = true; return a.play(); });
  await until(() => player.evaluate((a) => a.currentTime), (t) => t > 50.2, 'it to play on');
  assert.ok(seen.some((s) => s.method === 'GET' && s.status === 206), JSON.stringify(seen));
  await shot(page, 'media-sound');
  await page.reload();
  await until(() => player.evaluate((a) => a.duration), (d) => Math.abs(d - 60) < 0.5, 'its length after a reload');
  sound(page);
});

test('a video has its place and its controls; one that does not play can be saved', async () => {
  const page = await begin(await visitor());
  // A film of the browser's own.
  const bytes = await page.evaluate(async () => {
    const canvas = document.createElement('canvas');
    canvas.width = 160;
    canvas.height = 90;
    const pen = canvas.getContext('2d');
    const recorder = new MediaRecorder(canvas.captureStream(20), { mimeType: 'video/webm;codecs=vp8' });
    const parts = [];
    recorder.ondataavailable = (e) => parts.push(e.data);
    const over = new Promise((r) => { recorder.onstop = r; });
    recorder.start();
    for (let i = 0; i < 20; i++) {
      pen.fillStyle = `hsl(${i * 18} 60% 50%)`;
      pen.fillRect(0, 0, 160, 90);
      await new Promise((r) => setTimeout(r, 40));
    }
    recorder.stop();
    await over;
    return [...new Uint8Array(await new Blob(parts).arrayBuffer())];
  });
  await attach(page, file('film.webm', 'video/webm', Buffer.from(bytes)));
  await say(page, 'Look at that');
  await wholeReply(page, 'Look at that');
  const player = page.locator('.turn[data-turn] video');
  await until(() => player.evaluate((v) => v.videoWidth), (w) => w === 160, 'the film');
  assert.ok(await player.evaluate((v) => v.controls && v.preload === 'metadata'));
  await player.evaluate((v) => { v.muted = true; return v.play(); });
  await until(() => player.evaluate((v) => v.currentTime), (t) => t > 0.1, 'it to play');
  await shot(page, 'media-video');
  await attach(page, file('broken.mp4', 'video/mp4', Buffer.concat([Buffer.from('\0\0\0\x20ftypisom\0\0\x02\0', 'latin1'), Buffer.alloc(5000)])));
  await say(page, 'And that');
  await page.getByText('Video: your browser can’t show it.').waitFor();
  const href = await page.getByRole('link', { name: 'Save video' }).getAttribute('href');
  assert.match(href, /^\/api\/media\/[0-9a-f-]{36}$/);
  sound(page);
});

test('dropped onto the chat, pasted, and not beside it', async () => {
  const page = await begin(await visitor());
  await drop(page, [picture('dropped.png')], ['dragenter', 'dragover']);
  await page.getByText('Let go to attach').waitFor();
  await shot(page, 'media-drop');
  await drop(page, [picture('dropped.png')], ['drop']);
  await chips(page).getByText('dropped.png').waitFor();
  assert.equal(await page.getByText('Let go to attach').count(), 0);
  // A screenshot from the clipboard; and text, which stays text.
  await field(page).focus();
  const kept = await page.evaluate(([bytes]) => {
    const paste = (fill) => {
      const data = new DataTransfer();
      fill(data);
      return document.activeElement.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
    };
    const shotFile = new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], 'image.png', { type: 'image/png' });
    return [paste((d) => d.items.add(shotFile)), paste((d) => { d.setData('text/plain', 'words'); d.items.add(shotFile); })];
  }, [png(64, 64, 30).toString('base64')]);
  assert.deepEqual(kept, [false, true], 'a picture is taken, text is left to the field');
  await until(() => page.locator('.chip.stored').count(), (n) => n === 2, 'both to be stored');
  // Beside the chat it is refused, and the page stays.
  const left = await drop(page, [picture('beside.png')], ['dragover', 'drop'], '.side');
  assert.deepEqual(left, [false, false]);
  assert.equal(await chips(page).count(), 2);
  await sendButton(page).click();
  await wholeReply(page, alone('2 images'));
  assert.equal(await natural(page, 1), 64);
  sound(page);
});

test('what is not taken is said in words, and nothing of it is sent', async () => {
  const page = await begin(await visitor());
  const seen = watchMedia(page);
  const before = await page.locator('.turn').count();
  // Known by its name alone.
  await attach(page, file('notes.pdf', 'application/pdf', Buffer.from('%PDF-1.4')), 0);
  await page.getByText('notes.pdf: only pictures, sound and video can be sent.').waitFor();
  assert.equal(await chips(page).count(), 0);
  assert.deepEqual(seen, []);
  // Known by the server, which looks into it.
  await attach(page, file('drawing.svg', 'image/svg+xml', Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>')), 0);
  await page.getByText('This is not a PNG, JPEG, GIF or WebP picture').waitFor();
  assert.deepEqual(seen.map((s) => [s.method, s.status]), [['POST', 415]]);
  await page.getByText('One file did not get through').waitFor();
  const covered = await page.getByRole('button', { name: 'Remove drawing.svg' }).evaluate((e) => {
    const box = e.getBoundingClientRect();
    return !e.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2));
  });
  assert.ok(!covered, 'the notice covers no button');
  await field(page).fill('never sent');
  await field(page).press('Enter');
  assert.equal(await sendButton(page).isDisabled(), true);
  await shot(page, 'media-refused');
  // Too many: the first eight stay.
  await page.getByRole('button', { name: 'Remove drawing.svg' }).click();
  await attach(page, Array.from({ length: 9 }, (_, i) => picture(`p${i}.png`, 8, 8)), 8);
  await page.getByText('8 files at most; one was left out').waitFor();
  assert.equal(await chips(page).count(), 8);
  assert.equal(await page.locator('.turn').count(), before, 'no message went out');
  await shot(page, 'media-eight');
  await sendButton(page).click();
  await wholeReply(page, 'never sent');
  assert.equal(await page.locator('.turn').count(), before + 1);
  assert.equal(await lastMine(page).locator('.picture').count(), 8);
  sound(page);
});

test('removed: on its way it is cut, stored it is gone from the server', async () => {
  const page = await begin(await visitor());
  const seen = watchMedia(page);
  await attach(page, [picture('keep.png'), picture('drop.png')]);
  const gone = page.waitForResponse((r) => r.request().method() === 'DELETE');
  await page.getByRole('button', { name: 'Remove drop.png' }).press('Enter');
  const answer = await gone;
  assert.equal(answer.status(), 204);
  assert.equal(await page.evaluate((u) => fetch(u).then((r) => r.status), answer.url()), 404);
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('aria-label')), 'Remove keep.png', 'the focus has a place');
  // One that the network holds.
  await page.route('**/api/media', () => {}); // never answered
  const failed = page.waitForEvent('requestfailed');
  const chooser = page.waitForEvent('filechooser');
  await page.getByRole('button', { name: 'Attach pictures, sound or video' }).click();
  await (await chooser).setFiles(picture('held.png'));
  await page.getByText('A file is on the way; the message can go out after that.').waitFor();
  await field(page).fill('just the one');
  await field(page).press('Enter');
  assert.equal(await sendButton(page).isDisabled(), true);
  assert.equal(await field(page).inputValue(), 'just the one');
  await shot(page, 'media-on-its-way');
  await page.getByRole('button', { name: 'Remove held.png' }).click();
  assert.equal((await failed).method(), 'POST');
  await page.unroute('**/api/media');
  await field(page).press('Enter');
  await wholeReply(page, 'just the one');
  assert.equal(await lastMine(page).locator('.picture').count(), 1);
  assert.equal(seen.filter((s) => s.method === 'POST').length, 2);
  sound(page);
});

test('a file that fails is tried again by hand; 429 is waited out', async () => {
  const page = await begin(await visitor());
  let n = 0;
  await page.route('**/api/media', (route) => {
    n++;
    if (n === 1) return route.fulfill({ status: 429, headers: { 'retry-after': '2' }, json: { error: { code: 'rate_limited', message: 'x' } } });
    if (n === 2) return route.fulfill({ status: 500, json: { error: { code: 'internal', message: 'x' } } });
    return route.continue();
  });
  const began = Date.now();
  await attach(page, picture('thrice.png'), 0);
  await page.getByText('Too many files in a short time. It goes on by itself in 2 seconds.').waitFor();
  await shot(page, 'media-429');
  await page.getByText('Something went wrong on our side.').waitFor();
  assert.ok(Date.now() - began >= 2000, 'not before it was told to');
  assert.equal(n, 2);
  await page.getByRole('button', { name: 'Try thrice.png again' }).click();
  await page.locator('.chip.stored').waitFor();
  assert.equal(n, 3);
  await sendButton(page).click();
  await wholeReply(page, alone('an image'));
  sound(page);
});

test('too large: the server’s limit is told, while the file is still on its way', {
  skip: process.env.TROUPE_E2E_BINARY ? false : 'TROUPE_E2E_BINARY is not set',
}, async () => {
  const server = await ownServer('stub:', { TROUPE_MEDIA_MAX_MIB: '1' });
  const page = await begin(await visitor({ at: server.url }));
  await attach(page, [picture('fits.png'), file('large.wav', 'audio/wav', wav(300))], 1); // 26 MiB
  await page.getByText('The file is larger than 1 MiB.').waitFor();
  assert.equal(await page.locator('.chip.failed').count(), 1);
  await page.getByRole('button', { name: 'Remove large.wav' }).click();
  await sendButton(page).click();
  await wholeReply(page, alone('an image'));
  sound(page);
});

test('over a cut connection: the message with its picture goes out once, and is one turn', async () => {
  const page = await begin(await visitor());
  const seen = watchMedia(page);
  await attach(page, picture());
  await page.evaluate(() => { window.__held.down = true; window.__held.sockets.at(-1).close(); });
  await page.locator('.banner').waitFor();
  await say(page, 'from the dark');
  const waiting = page.locator('.mine.waiting, .mine.sending');
  await waiting.getByText('harbour.png').waitFor();
  await shot(page, 'media-offline');
  assert.equal(await chips(page).count(), 0, 'it is the message’s now');
  await page.evaluate(() => { window.__held.down = false; });
  await page.getByRole('button', { name: 'Try now' }).click({ timeout: 2000 }).catch(() => {});
  await wholeReply(page, 'from the dark');
  await page.reload(); // what the server has of it
  await natural(page);
  assert.equal(await page.locator('.mine').count(), 1);
  assert.equal(seen.filter((s) => s.method === 'POST').length, 1);
  sound(page);
});

test('a draft keeps its files while another chat is looked at', async () => {
  const page = await begin(await visitor());
  await attach(page, picture('draft.png'));
  await page.locator('.brand-link').click();
  await page.getByRole('button', { name: /^Begin a chat with/ }).nth(1).click();
  await page.locator('.turn .reply .prose').first().waitFor();
  assert.equal(await chips(page).count(), 0);
  await page.goBack();
  await page.goBack();
  await chips(page).getByText('draft.png').waitFor();
  await sendButton(page).click();
  await wholeReply(page, alone('an image'));
  sound(page);
});

test('two tabs see it; when it is gone, both say so in words', async () => {
  const context = await visitor();
  const one = await begin(context);
  const two = await tab(context, `/${new URL(one.url()).hash}`);
  await two.locator('.turn .reply .prose').first().waitFor();
  await one.bringToFront();
  await attach(one, [picture('shared.png'), file('tone.wav', 'audio/wav', wav(2))]);
  await sendButton(one).click();
  await wholeReply(one, alone('an image and an audio file'));
  await two.bringToFront();
  assert.equal(await natural(two), 320);
  await until(() => two.locator('.turn[data-turn] audio').evaluate((a) => a.duration), (d) => Math.abs(d - 2) < 0.1, 'the sound in the other tab');
  const addresses = await two.evaluate(() => [...document.querySelectorAll('.medium :is(img, audio)')].map((e) => e.getAttribute('src')));
  assert.equal(addresses.length, 2);
  // Another visitor sees nothing of it.
  const stranger = await begin(await visitor());
  for (const a of addresses) assert.equal(await stranger.evaluate((u) => fetch(u).then((r) => r.status), a), 404);
  for (const a of addresses) assert.equal(await two.evaluate((u) => fetch(u, { method: 'DELETE' }).then((r) => r.status), a), 204);
  const fresh = await context.newPage(); // without what the tabs have read
  await (await context.newCDPSession(fresh)).send('Network.setCacheDisabled', { cacheDisabled: true });
  await fresh.goto(one.url());
  await fresh.getByText('Picture 1 of 2: no longer here. It was deleted.').waitFor();
  await fresh.getByText('Sound 2 of 2: no longer here. It was deleted.').waitFor();
  await shot(fresh, 'media-gone');
  sound(one);
  sound(two);
});

test('what loads late moves nothing that is read', async () => {
  const page = await begin(await visitor());
  await attach(page, [picture('tall.png', 200, 900)]);
  await say(page, 'a tall one');
  await wholeReply(page, 'a tall one');
  for (let i = 0; i < 5; i++) await say(page, `line ${i}\n`.repeat(8));
  await wholeReply(page, Array(8).fill('line 4').join(' '), 60_000);
  await page.route('**/api/media/*', async (route) => { await new Promise((r) => setTimeout(r, 1500)); await route.continue(); });
  await (await page.context().newCDPSession(page)).send('Network.setCacheDisabled', { cacheDisabled: true });
  await page.reload();
  const img = page.locator('.turn[data-turn] .picture img');
  await img.waitFor({ state: 'attached' });
  const stage = page.getByRole('region', { name: 'The conversation' });
  await stage.evaluate((e) => { e.scrollTop = 300; });
  const place = () => page.locator('.turn').nth(2).evaluate((e) => Math.round(e.getBoundingClientRect().top));
  await page.waitForTimeout(200);
  const before = await place();
  assert.ok(await img.evaluate((i) => !(i.complete && i.naturalWidth > 0)), 'it is not there yet');
  await until(() => img.evaluate((i) => i.complete && i.naturalWidth), (w) => w === 200, 'the picture');
  await page.waitForTimeout(200);
  assert.equal(await place(), before);
  sound(page);
});

test('phone width, light and dark: nothing scrolls sideways', async () => {
  for (const scheme of ['light', 'dark']) {
    const context = await visitor({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: scheme });
    const page = await begin(context);
    const wide = () => page.evaluate(() => Math.max(document.scrollingElement.scrollWidth - innerWidth,
      ...[...document.querySelectorAll('.stage, .foot, .tray')].map((e) => e.scrollWidth - e.clientWidth)));
    const name = `${'a-very-long-name-'.repeat(8)}.png`;
    await attach(page, [picture(name, 1200, 800), file('tone.wav', 'audio/wav', wav(3)), picture('tall.png', 300, 900, 90)]);
    await attach(page, file('x.svg', 'image/svg+xml', Buffer.from('<svg/>')), 3);
    await page.locator('.chip.failed').waitFor();
    const seen = await page.locator('.chip.failed').evaluate((e) => {
      const [chip, tray] = [e.getBoundingClientRect(), e.closest('.tray').getBoundingClientRect()];
      return chip.top >= tray.top - 1 && chip.bottom <= tray.bottom + 1;
    });
    assert.ok(seen, 'the one in trouble is in view');
    await shot(page, `media-phone-attached-${scheme}`);
    assert.ok((await wide()) <= 0, `attached: ${await wide()}`);
    const box = await field(page).boundingBox();
    assert.ok(box.y > 0 && box.y + box.height <= 844, 'the composer is in view');
    await page.getByRole('button', { name: 'Remove x.svg' }).click();
    await say(page, 'from the phone');
    await wholeReply(page, 'from the phone');
    assert.equal(await natural(page), 1200);
    await attach(page, picture('wide.png', 1600, 300));
    await sendButton(page).click();
    await wholeReply(page, alone('an image'));
    await page.waitForTimeout(300);
    assert.ok((await wide()) <= 0, `sent: ${await wide()}`);
    await shot(page, `media-phone-${scheme}`);
    await page.locator('.picture').last().click();
    await page.getByRole('dialog').waitFor();
    assert.ok((await wide()) <= 0);
    await shot(page, `media-phone-viewer-${scheme}`);
    await page.getByRole('button', { name: 'Close' }).click();
    sound(page);
  }
});

test('the page’s policy lets in its own pictures and sound, and no more', async () => {
  const policy = (await fetch(base)).headers.get('content-security-policy');
  assert.match(policy, /img-src 'self' blob:;/);
  assert.match(policy, /media-src 'self';/);
});
