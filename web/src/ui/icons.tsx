// Line icons, drawn for this page; 24 by 24, the text's colour.

import type { JSX } from 'preact';

const paths = {
  send: 'M12 20V5M5.5 11 12 4.5 18.5 11',
  stop: 'M7 7h10v10H7z',
  back: 'M15 5l-7 7 7 7',
  previous: 'M14.5 6l-6 6 6 6',
  next: 'M9.5 6l6 6-6 6',
  down: 'M12 5v13M6 12.5l6 6 6-6',
  edit: 'M4.5 19.5l.8-4L16 4.8l3.2 3.2L8.5 18.7zM14 6.8l3.2 3.2',
  bin: 'M5 7h14M9.5 7V4.5h5V7M7 7l.8 12.5h8.4L17 7M10.3 10.5v6M13.7 10.5v6',
  copy: 'M9 9h10v11H9zM15 9V4.5H5V15h4',
  done: 'M5 12.5l4.5 4.5L19 7.5',
  again: 'M19 12a7 7 0 1 1-2.2-5.1M19 4v4.2h-4.2',
  sun: 'M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4',
  moon: 'M19.5 14.2A8 8 0 0 1 9.8 4.5a8 8 0 1 0 9.7 9.7z',
  close: 'M6 6l12 12M18 6L6 18',
  plus: 'M12 5v14M5 12h14',
  clip: 'M19.5 11.5l-7.6 7.6a4.6 4.6 0 0 1-6.5-6.5l8-8a3.1 3.1 0 0 1 4.4 4.4l-7.8 7.8a1.5 1.5 0 0 1-2.2-2.1l7.2-7.2',
  image: 'M4 5h16v14H4zM4.5 16.5l4.8-5 4 4.2 2.7-2.6 3.5 3.6M15 9.2h.01',
  audio: 'M9 18V6l10-2v12M9 18a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0zM19 16a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0z',
  video: 'M3.5 6h12v12h-12zM15.5 11l5-3v8l-5-3',
  file: 'M6.5 3.5h7l4 4v13h-11zM13.5 3.5v4h4',
  save: 'M12 4.5v10.5M7 10.5l5 5 5-5M5 19.5h14',
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={paths[name]} fill={name === 'stop' ? 'currentColor' : 'none'} />
    </svg>
  );
}
