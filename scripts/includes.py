#!/usr/bin/env python3
"""includes.py SRC: who may include whom (HACKING.md).  Prints each wrong include and exits 1 where there is one."""
import os
import re
import sys

MAY = {
    "role": {"role", "port", "domain", "base"},
    "adapter": {"adapter", "port", "domain", "base"},
    "port": {"port", "domain", "base"},
    "domain": {"domain", "base/result.h", "base/buf.h"},
    "base": {"base"},
    "command": {"command", "role", "port", "domain", "base", "wiring.h", "keyfile.h"},
}
SYSTEM_FREE = {"domain": {"uv.h", "sqlite3.h", "libwebsockets.h", "time.h", "stdio.h", "unistd.h", "pthread.h"}}


def main(src):
    wrong = 0
    for folder, _, files in os.walk(src):
        for name in files:
            path = os.path.relpath(os.path.join(folder, name), src)
            layer = path.split(os.sep)[0]
            if layer not in MAY or not name.endswith((".c", ".h", ".cc")):
                continue
            with open(os.path.join(src, path), encoding="utf-8") as f:
                text = f.read()
            for kind, target in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, re.M):
                if kind == "<":
                    bad = target in SYSTEM_FREE.get(layer, ())
                elif "/" not in target:
                    bad = target not in MAY[layer]
                else:
                    own_adapter = path.split(os.sep)[:2] if layer == "adapter" else None
                    other_adapter = own_adapter is not None and target.startswith("adapter/") and target.split("/")[:2] != own_adapter
                    bad = other_adapter or (target.split("/")[0] not in MAY[layer] and target not in MAY[layer])
                if bad:
                    print("%s may not include %s" % (path, target))
                    wrong = 1
    return wrong


sys.exit(main(sys.argv[1]))
