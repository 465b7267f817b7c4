#!/usr/bin/env python3
"""deploy-names.py FILE…: does every key (TROUPE_…, S3_…) and every metric (troupe_…) that the files name exist in the program?

Prints each that does not, and exits 1 where there is one.  Keys: those of .env.example, each also as KEY_FILE.  Metrics: those of METRIC() in
src/.  In Markdown a name that ends in "_" and an asterisk stands for several."""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOT_KEYS = {"TROUPE_TEST_", "TROUPE_VERSION"}


def keys():
    with open(os.path.join(TOP, ".env.example"), encoding="utf-8") as f:
        found = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", f.read(), re.M))
    return found | {k + "_FILE" for k in found}


def metrics():
    found = {"troupe_build_info"}
    for folder, _, files in os.walk(os.path.join(TOP, "src")):
        for name in files:
            if name.endswith(".c"):
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    found |= set(re.findall(r'"(troupe_[a-z0-9_]+)"', f.read()))
    return found | {m + s for m in found if m.endswith("_seconds") for s in ("_bucket", "_sum", "_count")}


def main(paths):
    known_keys, known_metrics, wrong = keys(), metrics(), 0
    for path in paths:
        with open(path, encoding="utf-8") as f:
            text = f.read()
        used = {k for k in re.findall(r"\b(?:TROUPE|S3)_[A-Z0-9_]+\b", text) if not k.startswith(tuple(NOT_KEYS))}
        for name in sorted(used - known_keys):
            print("%s: there is no key %s" % (path, name))
            wrong = 1
        for name in sorted(set(re.findall(r"\btroupe_[a-z0-9_]+\b", text)) - known_metrics):
            print("%s: there is no metric %s" % (path, name))
            wrong = 1
    return wrong


sys.exit(main(sys.argv[1:]))
