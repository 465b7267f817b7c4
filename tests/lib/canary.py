"""canary.py: a word that must stand nowhere in the open (contract 3.6), and the search for it in every file of a folder: plain, in any case,
in base64, UTF-16, hex and percent-encoded."""
import base64
import os

WORD = "Xylocanth-7731-Quarzblume"


def forms(word):
    raw = word.encode()
    yield "plain", raw
    yield "lower case", raw.lower()
    yield "UTF-16", word.encode("utf-16-le")
    yield "percent", b"".join(b"%%%02X" % b for b in raw)
    yield "hex", raw.hex().encode()
    for shift in range(3):  # base64 of the word at any of the three alignments
        yield "base64", base64.b64encode(b"\0" * shift + raw)[4 if shift else 0:-4]


def search_bytes(data, word=WORD):
    """The forms in which it stands there."""
    low = data.lower()
    return [form for form, pattern in forms(word) if pattern in data or (form == "plain" and pattern.lower() in low)]


def search(folder, word=WORD):
    """[(file, form)]"""
    found = []
    for top, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(top, name)
            try:
                with open(path, "rb") as f:
                    data = f.read()
            except FileNotFoundError:  # a server's, which it has just taken away
                continue
            found += [(os.path.relpath(path, folder), form) for form in search_bytes(data, word)]
    return found
