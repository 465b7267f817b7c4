// A message that the server has not accepted yet: on its way, waiting, or refused.

import type { JSX } from 'preact';
import type { OutItem } from '../protocol';
import { client } from '../store';
import { Thumb } from './tray';

interface OutgoingProps {
  item: OutItem;
  chat: string;
  /** It goes back to the composer. */
  onTakeBack: (item: OutItem) => void;
}

export function Outgoing({ item, chat, onTakeBack }: OutgoingProps): JSX.Element {
  const takeBack = () => {
    const given = client.discard(chat, item.id);
    if (given) onTakeBack(given);
  };
  return (
    <li class="turn">
      <article class={`mine ${item.state}`} aria-label="Your message, not sent yet">
        {item.files.length > 0 && (
          <ul class="tray sent" aria-label="Sent with it">
            {item.files.map((f) => <li key={f.key} class="chip"><Thumb item={f} /><span class="chip-name">{f.name}</span></li>)}
          </ul>
        )}
        {item.text && <div class="bubble">{item.text}</div>}
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
