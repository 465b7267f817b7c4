// What the page's tests share: a browser, visitors, tabs, and waiting for words.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before } from 'node:test';
import { chromium } from 'playwright-core';

export const base = process.env.TROUPE_E2E_URL;
const shots = process.env.TROUPE_E2E_SHOTS;
if (!base) throw new Error('TROUPE_E2E_URL is not set: start a troupe server and name it');
if (shots) mkdirSync(shots, { recursive: true });

let browser;
let contexts = [];
let servers = [];
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.TROUPE_E2E_CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
});
afterEach(async () => {
  for (const c of contexts) await c.close();
  contexts = [];
  for (const s of servers) await s.remove();
  servers = [];
});
after(() => browser?.close());

/** Keeps hold of the page's sockets, so that a test can cut them, and keep them cut. */
function holdSockets() {
  const Real = window.WebSocket;
  const held = (window.__held = { sockets: [], down: false });
  window.WebSocket = class extends Real {
    constructor(url, protocols) {
      super(held.down ? url.replace(/ws$/, 'nowhere') : url, protocols);
      held.sockets.push(this);
    }
  };
}

/** A new visitor: cookies of its own.  `at`: a server other than the common one. */
export async function visitor({ at = base, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.at = at;
  context.setDefaultTimeout(15_000);
  contexts.push(context);
  await context.addInitScript(holdSockets);
  return context;
}

const freePort = () => new Promise((resolve, reject) => {
  const s = createServer();
  s.on('error', reject);
  s.listen(0, '127.0.0.1', () => {
    const { port } = s.address();
    s.close(() => resolve(port));
  });
});

/** A server of the test's own, to be killed and started again on the same port and data; `more`: keys of its configuration. */
export async function ownServer(engine, more = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-e2e-'));
  const port = await freePort();
  const others = Object.entries(process.env).filter(([k]) => !k.startsWith('TROUPE_'));
  const env = {
    ...Object.fromEntries(others), TROUPE_LISTEN: `127.0.0.1:${port}`, TROUPE_ENGINE: engine, TROUPE_RATE_USER: '0', TROUPE_RATE_ADDRESS: '0',
    ...more,
  };
  let child = null;
  const server = {
    url: `http://127.0.0.1:${port}`,
    start: () => new Promise((resolve, reject) => {
      child = spawn(process.env.TROUPE_E2E_BINARY, ['up'], { cwd: folder, env, stdio: ['ignore', 'pipe', 'ignore'] });
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
      child.stdout.on('data', (d) => String(d).includes('ready') && resolve());
    }),
    kill: () => new Promise((resolve) => {
      if (!child || child.exitCode !== null || child.signalCode !== null) return resolve();
      child.once('exit', resolve);
      child.kill('SIGKILL');
    }),
    remove: () => server.kill().then(() => rmSync(folder, { recursive: true, force: true })),
  };
  servers.push(server);
  await server.start();
  return server;
}

/** A tab of a visitor.  Errors that the page throws, and breaches of its policy, fail the test. */
export async function tab(context, path = '/') {
  const page = await context.newPage();
  page.wrongs = [];
  page.on('pageerror', (e) => page.wrongs.push(e.message));
  page.on('console', (m) => /Content.Security.Policy/i.test(m.text()) && page.wrongs.push(m.text()));
  page.on('dialog', (d) => { page.wrongs.push(`dialog: ${d.message()}`); void d.dismiss(); });
  await page.goto(new URL(path, context.at).href);
  return page;
}

/** Begin a chat with the first character, or the one named. */
export async function begin(context, name = '') {
  const page = await tab(context);
  const card = page.getByRole('button', { name: `Begin a chat with ${name}` }).first();
  await card.click();
  await page.waitForURL(/#\/chat\//);
  await page.locator('.turn .reply .prose').first().waitFor(); // the greeting
  return page;
}

export async function shot(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png` });
}

export const field = (page) => page.getByRole('textbox', { name: /^Message/ });
export const stopButton = (page) => page.getByRole('button', { name: 'Stop the reply' });
export const lastReply = (page) => page.locator('.turn').last().locator('.reply .prose');

export async function say(page, text) {
  await field(page).fill(text);
  await field(page).press('Enter');
}

/** Poll until `get` gives what `accept` takes; the value. */
export async function until(get, accept, what, ms = 15_000) {
  const end = Date.now() + ms;
  let value;
  for (;;) {
    value = await get();
    if (accept(value)) return value;
    if (Date.now() > end) assert.fail(`waited in vain for ${what}; last: ${JSON.stringify(value)}`);
    await new Promise((r) => setTimeout(r, 50));
  }
}

export const wordsOf = async (page) => (await lastReply(page).innerText({ timeout: 15_000 })).replace(/\s+/g, ' ').trim();

/** Wait for the whole reply to `text`, and hold it to the stub engine's words. */
export async function wholeReply(page, text, ms = 30_000) {
  const name = (await page.locator('.chat-title h1').innerText()).trim();
  const whole = `${name} heard: ${text}`;
  await until(() => lastReply(page).count().then((n) => (n ? wordsOf(page) : '')), (t) => t === whole, 'the whole reply', ms);
  await page.locator('.turn').last().locator('.reply:not(.writing)').waitFor();
  assert.equal(await wordsOf(page), whole);
}

export const someWords = (page, n = 40) =>
  until(() => lastReply(page).count().then((c) => (c ? wordsOf(page) : '')), (t) => t.includes('heard:') && t.length > n, 'some words');

/** Distinct words, so that a lost or doubled one shows. */
export const words = (n, stem = 'word') => Array.from({ length: n }, (_, i) => `${stem}${i}`).join(' ');

export const sound = (page) => assert.deepEqual(page.wrongs, []);
