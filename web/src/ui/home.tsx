// The first view: the company, to choose whom to talk to.

import { useEffect, useState } from 'preact/hooks';
import type { JSX } from 'preact';
import { describe, type Character } from '../protocol';
import { chatsChanged, client, goTo, loadCharacters, notify, shared } from '../store';
import { ThemeButton } from './app';
import { ChatList } from './chatlist';
import { Avatar, Dots } from './parts';

export function Home(): JSX.Element {
  const { characters, chats } = shared;
  const [starting, setStarting] = useState<string | null>(null);
  document.title = 'Troupe';
  useEffect(() => {
    // Coming from a chat that is gone, the keyboard starts from this view.
    if (document.activeElement === document.body && history.length > 1) document.getElementById('main')?.focus({ preventScroll: true });
  }, []);

  async function start(character: Character): Promise<void> {
    if (starting) return;
    setStarting(character.id);
    try {
      const chat = await client.create(character.id);
      chatsChanged();
      goTo(chat);
    } catch (error) {
      notify(describe(error));
    } finally {
      setStarting(null);
    }
  }

  return (
    <div class="home">
      <div class="valance" aria-hidden="true" />
      <div class="home-theme"><ThemeButton /></div>
      <div class="home-inner">
        <p class="eyebrow">Tonight’s company</p>
        <h1>Who shall we talk to?</h1>
        <p class="lede">Choose a character and the scene begins. They remember where you left off.</p>
        {characters.state === 'loading' && <p class="quiet centred"><Dots /> The company is coming on stage</p>}
        {characters.state === 'failed' && (
          <div class="empty" role="alert">
            <p>{characters.words}</p>
            <button type="button" class="button" onClick={() => void loadCharacters()}>Try again</button>
          </div>
        )}
        {characters.state === 'ready' && characters.value.length === 0 && (
          <div class="empty">
            <p class="empty-title">The stage is empty.</p>
            <p>Bring someone on: <code>troupe character import FILE</code></p>
          </div>
        )}
        {characters.state === 'ready' && (
          <ul class="cast">
            {characters.value.map((c) => (
              <li key={c.id}>
                <button type="button" class="card" onClick={() => void start(c)} disabled={starting !== null} aria-label={`Begin a chat with ${c.name}`}
                  aria-describedby={`tagline-${c.id}`}>
                  <Avatar src={c.avatar} name={c.name} size="l" />
                  <span class="card-words">
                    <span class="name">{c.name}</span>
                    <span class="tagline" id={`tagline-${c.id}`}>{c.tagline || c.description || ''}</span>
                    <span class="card-go" aria-hidden="true">{starting === c.id ? <Dots /> : 'Begin a chat'}</span>
                  </span>
                </button>
              </li>
            ))}
          </ul>
        )}
        {chats.state === 'ready' && chats.value.length > 0 && (
          <div class="home-chats"><ChatList current={null} label="Go on with" /></div>
        )}
      </div>
    </div>
  );
}
