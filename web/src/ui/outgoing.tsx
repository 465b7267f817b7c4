// A message that the server has not accepted yet: on its way, waiting, or refused.

import type { JSX } from 'preact';
import type { OutItem } from '../protocol';
import { client } from '../store';

interface OutgoingProps {
  item: OutItem;
  chat: string;
  /** The text goes back to the composer. */
  onTakeBack: (text: string) => void;
}

export function Outgoing({ item, chat, onTakeBack }: OutgoingProps): JSX.Element {
  const takeBack = () => onTakeBack(client.discard(chat, item.id));
  return (
    <li class="turn">
      <article class={`mine ${item.state}`} aria-label="Your message, not sent yet">
        <div class="bubble">{item.text}</div>
        {item.note && <p class={item.state === 'failed' ? 'trouble' : 'aside'} role="status">{item.note}</p>}
        {item.state === 'failed' && (
          <div class="row end">
            <button type="button" class="link" onClick={() => client.again(chat, item.id)}>Send again</button>
            <button type="button" class="link" onClick={takeBack}>Take it back</button>
          </div>
        )}
        {item.state === 'sending' && !item.note && <p class="aside">Sending…</p>}
      </article>
    </li>
  );
}
