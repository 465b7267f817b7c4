// The user's chats, the one last spoken in first.

import type { JSX } from 'preact';
import { characterOf, loadChats, shared } from '../store';
import type { ChatInfo } from '../protocol';
import { Avatar } from './parts';

export function ChatList({ current, label }: { current: string | null; label: string }): JSX.Element {
  const { chats } = shared;
  return (
    <nav class="chats" aria-label={label}>
      <h2 class="eyebrow">{label}</h2>
      {chats.state === 'loading' && <p class="quiet">Looking them up…</p>}
      {chats.state === 'failed' && (
        <p class="quiet">{chats.words} <button type="button" class="link" onClick={() => void loadChats()}>Try again</button></p>
      )}
      {chats.state === 'ready' && chats.value.length === 0 && <p class="quiet">None yet. Choose someone to talk to, and it begins.</p>}
      {chats.state === 'ready' && (
        <ul>
          {chats.value.map((c) => (
            <li key={c.chat}>
              <a href={`#/chat/${c.chat}`} class="chat-link" aria-current={c.chat === current ? 'page' : undefined}>
                <Avatar src={avatarOf(c)} name={nameOf(c)} size="s" />
                <span class="chat-link-words">
                  <span class="name">{nameOf(c)}</span>
                  <span class="when">{when(c.updated ?? c.created)}</span>
                </span>
              </a>
            </li>
          ))}
        </ul>
      )}
    </nav>
  );
}

export function nameOf(chat: ChatInfo): string {
  return chat.name ?? characterOf(chat.character)?.name ?? chat.character;
}

function avatarOf(chat: ChatInfo): string | null | undefined {
  return chat.avatar ?? characterOf(chat.character)?.avatar;
}

/** "just now", "14:05", "Tuesday", "3 May 2025". */
export function when(iso: string | undefined): string {
  const date = iso ? new Date(iso) : null;
  if (!date || Number.isNaN(date.getTime())) return '';
  const ago = Date.now() - date.getTime();
  if (ago < 60_000) return 'just now';
  if (date.toDateString() === new Date().toDateString()) return date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  if (ago < 6 * 86_400_000) return date.toLocaleDateString([], { weekday: 'long' });
  return date.toLocaleDateString([], { day: 'numeric', month: 'long', year: 'numeric' });
}
