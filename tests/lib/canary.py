"""canary.py: search all files of a folder for a word, in the open and in the usual disguises."""
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


def search(folder, word):
    found = []
    for top, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(top, name)
            with open(path, "rb") as f:
                data = f.read()
            low = data.lower()
            for form, pattern in forms(word):
                if pattern in data or (form == "plain" and pattern.lower() in low):
                    found.append((os.path.relpath(path, folder), form))
    return found
