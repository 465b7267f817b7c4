#!/usr/bin/env python3
"""embed.py SYMBOL OUT.c FILE...: the files as a C array `const struct embedded_file SYMBOL[]` (base/embedded.h).

The same bytes in give the same bytes out.  A path is the file's name with a slash before it; index.html is "/"."""
import gzip
import hashlib
import os
import sys

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}


def array(name, data):
    rows = [",".join(str(b) for b in data[i : i + 32]) for i in range(0, len(data), 32)]
    return "static const unsigned char %s[] = {\n%s};\n" % (name, ",\n".join(rows) or "0")


def main():
    symbol, out, files = sys.argv[1], sys.argv[2], sorted(sys.argv[3:], key=os.path.basename)
    text, table = [], []
    for i, path in enumerate(files):
        with open(path, "rb") as f:
            data = f.read()
        name, kind = "/" + os.path.basename(path), TYPES.get(os.path.splitext(path)[1])
        if kind is None:
            sys.exit("embed.py: %s: no type is known for it" % path)
        small = gzip.compress(data, 9, mtime=0)
        packed = len(small) < len(data) * 9 // 10
        text.append(array("data_%d" % i, data))
        if packed:
            text.append(array("gzip_%d" % i, small))
        table.append('    {"%s", "%s", data_%d, %d, %s, %d, "\\"%s\\""},' % (
            "/" if name == "/index.html" else name, kind, i, len(data), "gzip_%d" % i if packed else "NULL",
            len(small) if packed else 0, hashlib.sha256(data).hexdigest()[:24]))
    with open(out, "w") as f:
        f.write('/* Made by scripts/embed.py. */\n#include "base/embedded.h"\n\n')
        f.write("\n".join(text))
        f.write("\nconst struct embedded_file %s[] = {\n%s\n};\n" % (symbol, "\n".join(table)))
        f.write("const size_t %s_n = %d;\n" % (symbol, len(files)))


main()
