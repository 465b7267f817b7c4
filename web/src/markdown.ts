// Replies as Markdown, made safe.
//
// Three walls: raw HTML in a reply is shown as the text it is; what Markdown makes is
// cleaned by DOMPurify down to a short list of tags; and the page's Content-Security-Policy
// runs no script and loads no image from elsewhere.  Images become links.

import DOMPurify from 'dompurify';
import { Marked } from 'marked';

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text: string): string => text.replace(/[&<>"']/g, (c) => escapes[c] ?? c);

const marked = new Marked({
  gfm: true,
  breaks: true,
  async: false,
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">🖼 ${escape(text || 'picture')}</a>`,
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
  },
});

const purify = DOMPurify(window);
const rules = {
  ALLOWED_TAGS: [
    'p', 'br', 'em', 'strong', 'del', 'code', 'pre', 'blockquote', 'ul', 'ol', 'li', 'a', 'hr',
    'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'table', 'thead', 'tbody', 'tr', 'th', 'td',
  ],
  ALLOWED_ATTR: ['href', 'start', 'align'],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

purify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName !== 'A') return;
  if (!node.hasAttribute('href')) return;
  node.setAttribute('target', '_blank');
  node.setAttribute('rel', 'noopener noreferrer nofollow');
});

/** Safe HTML of a reply, finished or not. */
export function toHtml(text: string): string {
  let html: string;
  try {
    html = marked.parse(text) as string;
  } catch {
    html = `<p>${escape(text)}</p>`;
  }
  return purify.sanitize(html, rules);
}

/** The words of a reply alone, for a screen reader's announcement. */
export function toWords(text: string): string {
  const box = document.createElement('div');
  box.innerHTML = toHtml(text);
  return (box.textContent ?? '').replace(/\s+/g, ' ').trim();
}
