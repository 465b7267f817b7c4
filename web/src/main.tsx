// The page's beginning: theme, connection, route, and the first draw.

import { render } from 'preact';
import './css/base.css';
import './css/shell.css';
import './css/chat.css';
import { ensureSession } from './api';
import { client, currentChat, hurryTrays, loadCharacters, loadChats, redraw } from './store';
import { applyTheme } from './theme';
import { App } from './ui/app';

function follow(): void {
  client.activate(currentChat());
  redraw();
}

applyTheme();
window.addEventListener('hashchange', follow);
window.addEventListener('online', () => {
  client.connection.hurry();
  hurryTrays();
  redraw();
});
window.addEventListener('offline', redraw);
// A file that is dropped beside the chat must not take the page's place.
for (const kind of ['dragover', 'drop'] as const)
  window.addEventListener(kind, (event) => {
    if (!event.defaultPrevented && event.dataTransfer?.types.includes('Files')) {
      event.preventDefault();
      event.dataTransfer.dropEffect = 'none';
    }
  });
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  client.connection.hurry();
  void loadChats();
});

client.connection.start();
follow();
// The lists need the session that the connection asks for; if that fails, they say so themselves.
void ensureSession().catch(() => {}).then(() => Promise.all([loadCharacters(), loadChats()]));

const root = document.getElementById('app');
if (root) render(<App />, root);
