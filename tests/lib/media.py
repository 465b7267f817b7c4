"""media.py: what the tests of media share: files of each type, a user who sends and asks for them, and where they rest.
With TROUPE_TEST_MEDIA set (a URL, and S3_… beside it) the server is on that store."""
import json
import os
import time

from troupe import Server

STORE = os.environ.get("TROUPE_TEST_MEDIA")
NOBODY = "01890000-0000-7000-8000-000000000000"
CHUNK, SEAL, HEAD = 65536, 57, 85
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\x06\0\0\0\x1f\x15\xc4\x89"

TYPES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "image/gif": b"GIF89a\1\0\1\0",
    "image/webp": b"RIFF\x24\0\0\0WEBPVP8 ",
    "audio/mpeg": b"ID3\4\0\0\0\0\0\0",
    "audio/ogg": b"OggS\0\2" + bytes(20) + b"\1\x13OpusHead",
    "video/ogg": b"OggS\0\2" + bytes(20) + b"\1\x13\x80theora",
    "audio/wav": b"RIFF\x24\0\0\0WAVEfmt ",
    "audio/flac": b"fLaC\0\0\0\x22",
    "audio/mp4": b"\0\0\0\x20ftypM4A \0\0\0\0",
    "video/mp4": b"\0\0\0\x20ftypisom\0\0\2\0",
    "video/webm": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\x82\x84webm\x42\x87\x81\4" + b"\x86\x85V_VP9",
    "audio/webm": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\x82\x84webm\x42\x87\x81\4" + b"\x86\x86A_OPUS",
}
REFUSED = {
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "html": b"<!doctype html><script>alert(1)</script>",
    "text": b"a text that says image/png",
    "program": b"\x7fELF\2\1\1\0",
    "zip": b"PK\3\4",
    "matroska": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\x82\x88matroska",
    "heic": b"\0\0\0\x20ftypheic\0\0\0\0",
    "one byte": b"\x89",
    "riff of another kind": b"RIFF\x24\0\0\0AVI LIST",
}


def server(**env):
    if STORE:
        env = {"TROUPE_MEDIA": STORE, **{k: v for k, v in os.environ.items() if k.startswith("S3_")}, **env}
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1:quarantine_size_mb=4")
    return Server(**env)


class User:
    def __init__(self, s, token=None):
        self.s, self.token = s, token or s.session()["token"]

    def http(self, method, path, body=None, **headers):
        h = {"Authorization": "Bearer " + self.token}
        h.update({k.replace("_", "-"): v for k, v in headers.items()})
        return self.s.http(method, path, body, h)

    def upload(self, data, **headers):
        status, _, body = self.http("POST", "/api/media", data, **headers)
        return status, json.loads(body)

    def put(self, data):
        status, answer = self.upload(data)
        assert status == 200, (status, answer)
        return answer["media"]


def files(s):
    """Paths under the media folder, without what is on its way; {} on another store."""
    top = os.path.join(s.folder, "data", "media")
    return sorted(os.path.relpath(os.path.join(d, f), top) for d, _, fs in os.walk(top) for f in fs)


def until(test, what, seconds=15):
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def error(body):
    return json.loads(body)["error"]


def make_store():
    """The bucket, where the tests run on one."""
    if not STORE:
        return
    s = server()
    made = s.command("init", **{k: v for k, v in os.environ.items() if k.startswith("S3_")})
    assert made.returncode == 0, made.stderr
    s.remove()
