// The frame of the page: the list of chats, the view in the middle, the notices.

import { useEffect, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import { duration } from '../protocol';
import { client, currentChat, dismiss, shared, useShared } from '../store';
import { theme, toggleTheme } from '../theme';
import { ChatView } from './chat';
import { Home } from './home';
import { IconButton } from './parts';
import { ChatList } from './chatlist';

export function App(): JSX.Element {
  useShared();
  const chat = currentChat();
  return (
    <div class={`shell ${chat ? 'in-chat' : 'at-home'}`}>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main')?.focus(); }}>Skip to the stage</a>
      <header class="side">
        <div class="brand">
          <a href="#/" class="brand-link" aria-label="Troupe, to the company">
            <img src="/favicon.svg" alt="" width="34" height="34" />
            <span>Troupe</span>
          </a>
          <ThemeButton />
        </div>
        <ChatList current={chat} label="Your chats" />
      </header>
      <main id="main" tabIndex={-1}>
        <Banner />
        {chat ? <ChatView key={chat} id={chat} /> : <Home />}
      </main>
      <Notices />
    </div>
  );
}

export function ThemeButton(): JSX.Element {
  const [now, setNow] = useState(theme());
  const dark = now === 'dark';
  return <IconButton icon={dark ? 'sun' : 'moon'} label={dark ? 'Light colours' : 'Dark colours'} onClick={() => setNow(toggleTheme())} />;
}

/** Says that there is no connection, once that has lasted a moment. */
function Banner(): JSX.Element {
  const { state, trouble } = client.connection;
  const [late, setLate] = useState(false);
  const down = state !== 'open';
  useEffect(() => {
    setLate(false);
    if (!down) return;
    const timer = setTimeout(() => setLate(true), 900);
    return () => clearTimeout(timer);
  }, [down]);
  let words = '';
  if (down && late) {
    if (!navigator.onLine) words = 'You are offline. What you write is kept and goes out when you are back.';
    else if (trouble?.code === 'rate_limited' || trouble?.code === 'overloaded')
      words = `The house is full${trouble.retryAfterMs ? `; trying again in ${duration(trouble.retryAfterMs)}` : ''}.`;
    else words = 'Reconnecting… nothing is lost.';
  }
  return (
    <div class="banner-place" role="status">
      {words && (
        <div class="banner">
          <span>{words}</span>
          <button type="button" class="link" onClick={() => client.connection.hurry()}>Try now</button>
        </div>
      )}
    </div>
  );
}

function Notices(): JSX.Element {
  return (
    <div class="notices" role="alert">
      {shared.notices.map((n) => (
        <div class="notice" key={n.id}>
          <span>{n.words}</span>
          <IconButton icon="close" label="Close this notice" onClick={() => dismiss(n.id)} />
        </div>
      ))}
    </div>
  );
}
