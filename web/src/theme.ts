// Light or dark: the system's choice unless the person made one.

const KEY = 'troupe-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

export type Theme = 'light' | 'dark';

function chosen(): Theme | null {
  try {
    const value = localStorage.getItem(KEY);
    return value === 'light' || value === 'dark' ? value : null;
  } catch {
    return null; // storage may be forbidden
  }
}

export function theme(): Theme {
  return chosen() ?? (system.matches ? 'dark' : 'light');
}

export function applyTheme(): void {
  document.documentElement.dataset['theme'] = theme();
}

/** The other one; back to the system's choice when that is the same. */
export function toggleTheme(): Theme {
  const next: Theme = theme() === 'dark' ? 'light' : 'dark';
  try {
    if ((next === 'dark') === system.matches) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, next);
  } catch {
    // it holds for this page alone then
  }
  document.documentElement.dataset['theme'] = next;
  return next;
}

system.addEventListener('change', applyTheme);
