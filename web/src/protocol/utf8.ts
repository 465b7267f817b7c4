// UTF-8 lengths and cuts of JavaScript strings: `offset` in a delta counts bytes.

/** Bytes that `text` takes in UTF-8.  A lone surrogate counts 3, as the replacement character. */
export function utf8Length(text: string): number {
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) bytes += 1;
    else if (unit < 0x800) bytes += 2;
    else if (unit >= 0xd800 && unit < 0xdc00 && isLow(text.charCodeAt(i + 1))) {
      bytes += 4;
      i++;
    } else bytes += 3;
  }
  return bytes;
}

/** The part of `text` before byte `offset`; null if it has fewer bytes or `offset` splits a character. */
export function utf8Head(text: string, offset: number): string | null {
  let bytes = 0;
  let i = 0;
  while (bytes < offset && i < text.length) {
    const point = text.codePointAt(i) as number;
    bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    i += point < 0x10000 ? 1 : 2;
  }
  return bytes === offset ? text.slice(0, i) : null;
}

/** Characters as the server counts them: code points after NFC. */
export function countCharacters(text: string): number {
  let n = 0;
  for (const _ of text.normalize('NFC')) n++;
  return n;
}

function isLow(unit: number): boolean {
  return unit >= 0xdc00 && unit < 0xe000;
}
