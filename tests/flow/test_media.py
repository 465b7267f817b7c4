"""Media (contract 6, 7, 10): files of chats through the real program: what is taken, how it rests, who may see it, and that memory
stays bounded.  With TROUPE_TEST_MEDIA set (a URL, and S3_… beside it) the same on that store; what looks into files is left out then."""
import asyncio
import http.client
import http.server
import json
import os
import shutil
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from canary import WORD, search  # noqa: E402
from troupe import Client, Refused, Server, run  # noqa: E402

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


def types():
    with server() as s:
        u = User(s)
        for name, head in TYPES.items():
            data = head + os.urandom(3000)
            status, answer = u.upload(data, Content_Type="text/html")  # a hint that lies
            assert status == 200 and answer["type"] == name and answer["bytes"] == len(data), (name, status, answer)
            status, h, body = u.http("GET", "/api/media/" + answer["media"])
            assert status == 200 and body == data and h["Content-Type"] == name, (name, h)
            assert h["X-Content-Type-Options"] == "nosniff" and h["Cache-Control"].startswith("private"), h
            assert h["Content-Disposition"].startswith('inline; filename="' + answer["media"]), h
            assert "sandbox" in h["Content-Security-Policy"] and "script" not in h["Content-Security-Policy"]
        before = files(s)
        for name, data in REFUSED.items():
            for body in (data, data + bytes(200000)):
                status, answer = u.upload(body, Content_Type="image/png")
                assert status == 415 and answer["error"]["code"] == "bad_request", (name, status, answer)
                assert answer["error"]["field"] == "body", answer
        assert files(s) == before
        status, answer = u.upload(b"")
        assert status == 400 and answer["error"]["field"] == "body", (status, answer)


def sizes_and_ranges():
    with server() as s:
        u = User(s)
        for size in (len(PNG), CHUNK - 1, CHUNK, CHUNK + 1, 4 * CHUNK, 4 * CHUNK + 1, 9 * CHUNK + 77):
            data = PNG + os.urandom(size - len(PNG))
            path = "/api/media/" + u.put(data)
            status, h, body = u.http("GET", path)
            assert status == 200 and body == data and int(h["Content-Length"]) == size, size
            assert h["Accept-Ranges"] == "bytes"
            status, h, body = u.http("HEAD", path)
            assert status == 200 and body == b"" and int(h["Content-Length"]) == size and h["Content-Type"] == "image/png"
            tag = h["ETag"]
            status, h, body = u.http("GET", path, If_None_Match=tag)
            assert status == 304 and body == b"" and h["ETag"] == tag
            for text, a, b in [("0-0", 0, 1), ("0-", 0, size), ("5-9", 5, 10), ("-1", size - 1, size), ("-%d" % (size + 9), 0, size),
                               ("%d-" % (size - 1), size - 1, size), ("3-%d" % (size * 2), 3, size),
                               ("%d-%d" % (size // 2, size - 2), size // 2, size - 1)]:
                status, h, body = u.http("GET", path, Range="bytes=" + text)
                assert status == 206 and body == data[a:b], (size, text, status, len(body))
                assert h["Content-Range"] == "bytes %d-%d/%d" % (a, b - 1, size) and int(h["Content-Length"]) == b - a, h
            for text in ("%d-" % size, "%d-%d" % (size + 1, size + 2), "-0"):
                status, h, body = u.http("GET", path, Range="bytes=" + text)
                assert status == 416 and h["Content-Range"] == "bytes */%d" % size, (text, status)
                assert error(body)["code"] == "bad_request"
            for text in ("bytes=9-5", "bytes=a-b", "lines=0-1", "bytes=0-1,3-4", "bytes="):
                status, _, body = u.http("GET", path, Range=text)
                assert status == 200 and body == data, text
            status, _, body = u.http("GET", path, Range="bytes=0-0", If_Range='"another"')
            assert status == 200 and body == data
            status, _, body = u.http("GET", path, Range="bytes=0-0", If_Range=tag)
            assert status == 206 and body == data[:1]
        # every boundary of pieces, from both sides
        for edge in range(CHUNK, size, CHUNK):
            for a, b in ((edge - 1, edge + 1), (edge, edge + 1), (edge - 1, edge)):
                status, _, body = u.http("GET", path, Range="bytes=%d-%d" % (a, b - 1))
                assert status == 206 and body == data[a:b], (edge, a, b)


def whose():
    with server() as s:
        u, other = User(s), User(s)
        media = u.put(PNG + bytes(1000))
        other.put(PNG)
        for method in ("GET", "HEAD", "DELETE"):
            theirs = other.http(method, "/api/media/" + media)
            nobodys = other.http(method, "/api/media/" + NOBODY)
            assert theirs[0] == nobodys[0] == 404 and theirs[2] == nobodys[2], (method, theirs, nobodys)
            assert s.http(method, "/api/media/" + media)[0] == 401, method
            assert u.http(method, "/api/media/nothing")[0] == 400, method
        assert s.http("POST", "/api/media", PNG)[0] == 401
        assert User(s).http("GET", "/api/media/" + media)[0] == 404  # has no key at all
        assert u.http("POST", "/api/media", PNG, Origin="http://evil.example")[0] == 403
        status, h, _ = u.http("POST", "/api/media/" + media, b"")
        assert status == 405 and h["Allow"] == "GET, HEAD, DELETE", (status, h)
        assert u.http("GET", "/api/media/" + media)[0] == 200
        assert u.http("DELETE", "/api/media/" + media)[0] == 204
        assert u.http("GET", "/api/media/" + media)[0] == 404
        for user in (u, User(s)):  # who has, and who never had, a file
            status, _, body = user.http("DELETE", "/api/media/" + media)
            assert status == 404 and error(body)["message"] == "There is no such media.", (status, body)


def limits():
    with server(TROUPE_MEDIA_MAX_MIB=1) as s:
        u = User(s)
        u.put(PNG + bytes((1 << 20) - len(PNG)))
        for size in ((1 << 20) + 1, 30 << 20):
            c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20)
            c.request("POST", "/api/media", PNG + bytes(size - len(PNG)), {"Authorization": "Bearer " + u.token})
            r = c.getresponse()
            e = error(r.read())
            assert r.status == 413 and e["code"] == "too_large" and e["field"] == "body" and "1 MiB" in e["message"], e
            c.close()
        with socket.create_connection(("127.0.0.1", s.port)) as raw:
            raw.sendall(("POST /api/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % u.token).encode())
            assert raw.recv(1000).startswith(b"HTTP/1.1 411 ")
        with socket.create_connection(("127.0.0.1", s.port)) as raw:  # a body that is asked for, and two requests on one connection
            head = "POST /api/media HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
            for _ in range(2):
                raw.sendall((head % (u.token, len(PNG))).encode())
                assert raw.recv(1000).startswith(b"HTTP/1.1 100 ")
                raw.sendall(PNG)
                assert raw.recv(2000).startswith(b"HTTP/1.1 200 ")
        # five at once of one user: four are taken on
        waiting = []
        for n in range(5):
            raw = socket.create_connection(("127.0.0.1", s.port))
            raw.sendall(("POST /api/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n" % u.token)
                        .encode() + PNG)
            waiting.append(raw)
        answers = []
        for raw in waiting:
            raw.settimeout(1)
            try:
                answers.append(raw.recv(1000)[:12])
            except socket.timeout:
                answers.append(None)
            raw.close()
        assert answers.count(None) == 4 and b"HTTP/1.1 429" in answers, answers
    with server(TROUPE_RATE_USER=2) as s:
        u = User(s)
        u.put(PNG), u.put(PNG)
        status, h, body = u.http("POST", "/api/media", PNG)
        assert status == 429 and int(h["Retry-After"]) > 0 and error(body)["code"] == "rate_limited", (status, body)


async def in_chats():
    s = await server().start_async()
    try:
        loop = asyncio.get_running_loop()
        u, other = User(s), User(s)
        picture, sound, film = u.put(PNG), u.put(TYPES["audio/mpeg"]), u.put(TYPES["video/mp4"])
        foreign = other.put(PNG)
        async with Client(s, u.token) as c, Client(s, u.token) as second:
            chat = (await c.open())["chat"]
            await second.open(chat=chat)
            for media, part in [([NOBODY], "no such media"), ([foreign], "no such media"), ([picture] * 2, "twice"),
                                ([picture] + [NOBODY] * 8, "8"), (["x"], "UUID"), ("x", "list"), ([5], "UUID")]:
                try:
                    await c.ask("send", chat=chat, id="bad", text="look", media=media)
                    raise AssertionError(media)
                except Refused as e:
                    assert e.code == "bad_request" and e.frame["field"] == "media" and part in e.frame["message"], e.frame
            try:
                await c.ask("send", chat=chat, id="bad", text=" ", media=[])
                raise AssertionError("empty")
            except Refused as e:
                assert e.frame["field"] == "text", e.frame
            turns = (await c.ask("history", chat=chat))["turns"]
            assert len(turns) == 1, "bad input changed something"
            want = {"media": [picture, sound, film], "media_types": ["image/png", "audio/mpeg", "video/mp4"]}
            turn = (await c.ask("send", chat=chat, id="one", text="", media=want["media"]))["turn"]
            assert (await c.ask("send", chat=chat, id="one", text="", media=want["media"]))["turn"] == turn
            reply = await c.reply(turn)
            assert reply["text"].endswith("[The user attached an image, an audio file and a video.]"), reply
            event = await second.until(lambda e: e["type"] == "turn" and e["turn"]["turn"] == turn)
            assert {k: event["turn"][k] for k in want} == want and event["turn"]["text"] == "", event
            await c.ask("regenerate", turn=turn)
            assert "attached an image" in (await c.reply(turn, 1))["text"]
            await c.ask("edit", turn=turn, text="what is this?")
            await c.ask("regenerate", turn=turn)
            assert (await c.reply(turn, 2))["text"] == "Mira heard: what is this?"
            plain = await c.say(chat, "no picture")
            await c.reply(plain)
            await c.ask("edit", turn=turn, text="")  # fine: there are media
            try:
                await c.ask("edit", turn=plain, text="")
                raise AssertionError("an empty edit")
            except Refused as e:
                assert e.frame["field"] == "text", e.frame
            await c.ask("edit", turn=turn, text="what is this?")
        assert await loop.run_in_executor(None, s.stop) == 0
        await s.start_async()  # it is all there after a restart
        async with Client(s, u.token) as c:
            turns = (await c.open(chat=chat))["turns"]
            mine = [t for t in turns if t["turn"] == turn][0]
            assert {k: mine[k] for k in want} == want and mine["text"] == "what is this?", mine
            assert all(t["media"] == [] for t in turns if t["turn"] != turn)
            get = lambda m: u.http("GET", "/api/media/" + m)[0]  # noqa: E731
            assert [await loop.run_in_executor(None, get, m) for m in want["media"]] == [200] * 3
            # one goes: the message that was accepted with it is still the same one, a new one can't name it
            gone = lambda: u.http("DELETE", "/api/media/" + picture)[0]  # noqa: E731
            assert await loop.run_in_executor(None, gone) == 204
            assert (await c.ask("send", chat=chat, id="one", text="", media=want["media"]))["turn"] == turn
            try:
                await c.ask("send", chat=chat, id="another", text="", media=want["media"])
                raise AssertionError("a message with a file that is gone")
            except Refused as e:
                assert e.code == "bad_request" and e.frame["field"] == "media", e.frame
            assert len((await c.ask("history", chat=chat))["turns"]) == len(turns)
            await c.reply(await c.say(chat, "and on"))
    finally:
        s.remove()


async def forgetting():
    s = await server().start_async()
    try:
        u = User(s)
        def there(m):
            return u.http("HEAD", "/api/media/" + m)[0] == 200
        shared, own, kept, unsent = (u.put(PNG) for _ in range(4))
        async with Client(s, u.token) as c:
            one, two = (await c.open())["chat"], (await c.open("juno"))["chat"]
            a = (await c.ask("send", chat=one, id="a", text="a", media=[shared, own]))["turn"]
            b = (await c.ask("send", chat=one, id="b", text="b", media=[shared]))["turn"]
            d = (await c.ask("send", chat=two, id="a", text="c", media=[shared, kept]))["turn"]
            for turn in (a, b, d):
                await c.reply(turn)
            await c.ask("delete", turn=a)
            await asyncio.to_thread(until, lambda: not there(own), "a deleted turn's own file goes")
            assert there(shared), "another turn names it"
            await c.ask("delete", turn=b)
            await asyncio.sleep(0.5)
            assert there(shared), "a turn of another chat names it"
        assert u.http("DELETE", "/api/chats/" + two)[0] == 204
        until(lambda: not there(shared) and not there(kept), "the files of a deleted chat go")
        assert there(unsent), "what no message ever named stays for a day"
        if not STORE:
            assert [f for f in files(s) if not f.endswith(unsent)] == [], files(s)
        assert s.stop() == 0
    finally:
        s.remove()


async def left_by_a_kill():
    """A kill right after the answer to a deletion, before its media went: they go when it is asked for again, or when the user sends
    the next file.  (What a kill in that moment leaves is put back from a copy: the moment is too short to be hit.)"""
    s = await server().start_async()
    top, copy = os.path.join(s.folder, "data", "media"), os.path.join(s.folder, "copy")

    def killed():
        s.kill()
        shutil.rmtree(top)
        shutil.copytree(copy, top)
        s.start()
    try:
        u = User(s)

        def there(m):
            return u.http("HEAD", "/api/media/" + m)[0] == 200
        again, later, turns, kept = (u.put(PNG) for _ in range(4))
        async with Client(s, u.token) as c:
            one, two, three = [(await c.open())["chat"] for _ in range(3)]
            await c.reply((await c.ask("send", chat=one, id="a", text="a", media=[again]))["turn"])
            await c.reply((await c.ask("send", chat=two, id="b", text="b", media=[later]))["turn"])
            turn = (await c.ask("send", chat=three, id="c", text="c", media=[turns, kept]))["turn"]
            other = (await c.ask("send", chat=three, id="d", text="d", media=[kept]))["turn"]
            await c.reply(turn)
            await c.reply(other)
        shutil.copytree(top, copy)
        assert len(files(s)) == 9, files(s)
        assert u.http("DELETE", "/api/chats/" + one)[0] == 204
        killed()
        assert there(again), "left"
        assert u.http("DELETE", "/api/chats/" + one)[0] == 404
        until(lambda: not there(again), "the repeat lets go of them")
        assert there(later) and there(turns) and there(kept)
        shutil.rmtree(copy)
        shutil.copytree(top, copy)
        assert u.http("DELETE", "/api/chats/" + two)[0] == 204
        killed()
        async with Client(s, u.token) as c:
            await c.open(chat=three)
            await c.ask("delete", turn=turn)
        killed()
        assert there(later) and there(turns) and there(kept), "left"
        u.put(PNG)
        until(lambda: not there(later) and not there(turns), "the next file lets go of them")
        assert there(kept), "another turn names it"
        left = [f for f in files(s) if "." in f]
        assert len(left) == 1 and kept in left[0] and three in left[0], left
        killed()
        assert there(turns), "left"
        async with Client(s, u.token) as c:
            await c.open(chat=three)
            try:
                await c.ask("delete", turn=turn)
                raise AssertionError("deleted twice")
            except Refused as e:
                assert e.code == "not_found", e.frame
        await asyncio.to_thread(until, lambda: not there(turns) and not there(later), "the repeat lets go of it")
        assert there(kept)
        assert s.stop() == 0
    finally:
        s.remove()


async def refusing_s3():
    """An S3 that refuses everything is a store that is away: nothing is called damaged, or not there."""
    class No(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b"<Error><Code>%s</Code></Error>" % code[0]
            self.send_response(404 if code[0] == b"NoSuchBucket" else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        do_GET = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *args):
            pass
    code = [b"AccessDenied"]
    s3 = http.server.ThreadingHTTPServer(("127.0.0.1", 0), No)
    threading.Thread(target=s3.serve_forever, daemon=True).start()
    s = Server(TROUPE_MEDIA="s3://bucket", S3_ENDPOINT_URL="http://127.0.0.1:%d" % s3.server_port, S3_REGION="us-east-1",
               S3_ACCESS_KEY_ID="a", S3_SECRET_ACCESS_KEY="b")
    await s.start_async()
    try:
        u = User(s)
        for code[0] in (b"AccessDenied", b"RequestTimeTooSkewed", b"SignatureDoesNotMatch", b"NoSuchBucket"):
            for method, path, body in (("POST", "", PNG), ("GET", "/" + NOBODY, None)):
                status, h, answer = await asyncio.to_thread(u.http, method, "/api/media" + path, body)
                assert status == 503 and "Retry-After" in h and "store of media" in error(answer)["message"], (code, method, answer)
        status, _, answer = await asyncio.to_thread(u.http, "DELETE", "/api/media/" + NOBODY)
        assert status == 503 and "store of media" in error(answer)["message"], answer
        async with Client(s, u.token) as c:
            chat = (await c.open())["chat"]
            try:
                await c.ask("send", chat=chat, id="i", text="t", media=[NOBODY])
                raise AssertionError("taken")
            except Refused as e:
                assert e.code == "overloaded" and "store of media" in e.frame["message"] and e.frame["retry_after_ms"] > 0, e.frame
            await c.reply(await c.say(chat, "words go on"))
        assert (await asyncio.to_thread(u.s.http, "GET", "/readyz"))[0] == 200
        assert s.stop() == 0
    finally:
        s.remove()
        s3.shutdown()


def slow():
    """Who sends next to nothing is told so after half a minute, and does not hold a place; who sends 24 KiB a second may go on."""
    head = "POST /api/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
    with server(TROUPE_RATE_ADDRESS=1000) as s:
        raws = []

        def begin(token):
            raws.append(socket.create_connection(("127.0.0.1", s.port)))
            raws[-1].sendall((head % (token, 10 << 20)).encode() + PNG)
            raws[-1].setblocking(False)

        def answer(raw):
            try:
                return raw.recv(4000)
            except BlockingIOError:
                return None
        for _ in range(4):
            token = s.session()["token"]
            for _ in range(4):
                begin(token)
        time.sleep(0.5)
        assert all(answer(raw) is None for raw in raws)
        status, e = User(s).upload(PNG)
        assert status == 429 and "your address" in e["error"]["message"], (status, e)
        start = time.monotonic()
        told = {}
        while len(told) < 15 and time.monotonic() - start < 60:
            time.sleep(1)
            raws[0].sendall(bytes(24 << 10))
            for n, raw in enumerate(raws):
                got = None if n in told else answer(raw)
                if got is not None:
                    told[n] = (got, time.monotonic() - start)
                elif n > 0 and n not in told:
                    raw.send(b"x")
        assert sorted(told) == list(range(1, 16)), told
        for got, at in told.values():
            assert got.startswith(b"HTTP/1.1 408 ") and b"too slowly" in got and 28 < at < 50, (got, at)
        for raw in raws:
            raw.close()
        until(lambda: User(s).upload(PNG)[0] == 200, "there is room again")


def address_rate():
    with server(TROUPE_RATE_ADDRESS=3) as s:
        for _ in range(3):
            User(s).put(PNG)
        status, h, body = User(s).http("POST", "/api/media", PNG)
        assert status == 429 and int(h["Retry-After"]) > 0 and error(body)["code"] == "rate_limited", (status, body)


def rss(s):
    with open("/proc/%d/status" % s.proc.pid) as f:
        return [int(line.split()[1]) for line in f if line.startswith("VmRSS")][0] // 1024


def memory():
    """200 MB in, then out to a reader that is slow at first: what the process holds, in MiB."""
    size = 200 << 20
    block = os.urandom(1 << 20)
    with server(TROUPE_MEDIA_MAX_MIB=256, TROUPE_LOG_LEVEL="info") as s:
        u = User(s)
        u.put(PNG + block)
        before = most = rss(s)
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
        c.putrequest("POST", "/api/media")
        c.putheader("Authorization", "Bearer " + u.token)
        c.putheader("Content-Length", str(size))
        c.endheaders()
        start = time.monotonic()
        c.send(PNG + block[len(PNG):])
        for _ in range(size // len(block) - 1):
            c.send(block)
            most = max(most, rss(s))
        r = c.getresponse()
        answer = json.loads(r.read())
        assert r.status == 200 and answer["bytes"] == size, answer
        took_in = time.monotonic() - start
        up = max(most, rss(s)) - before
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.connect(("127.0.0.1", s.port))
        raw.settimeout(60)
        raw.sendall(("GET /api/media/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n"
                     % (answer["media"], u.token)).encode())
        most = 0
        for _ in range(20):  # it reads next to nothing for two seconds
            time.sleep(0.1)
            most = max(most, rss(s))
        got = bytearray()
        start = time.monotonic()
        n = 0
        while True:
            data = raw.recv(1 << 20)
            if not data:
                break
            n += len(data)
            got += data[: 4096 - len(got)] if len(got) < 4096 else b""
            if n % (1 << 23) < len(data):
                most = max(most, rss(s))
        head = bytes(got[: got.index(b"\r\n\r\n") + 4])
        assert n - len(head) == size and b"200 OK" in head, (n, head)
        took_out = time.monotonic() - start
        down = most - before
        print("   200 MiB: in %.1f s, +%d MiB; out %.1f s, +%d MiB; at rest %d MiB" % (took_in, up, took_out, down, before))
        assert up < 48 and down < 48, (up, down)


def cut():
    """Uploads that end too early, by the client's hand and by a kill, leave nothing."""
    s = server(TROUPE_MEDIA_MAX_MIB=64).start()
    try:
        u = User(s)
        head = ("POST /api/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
                % (u.token, 40 << 20)).encode()
        for sent in (0, 10, CHUNK, 5 << 20):
            with socket.create_connection(("127.0.0.1", s.port)) as raw:
                raw.sendall(head + (PNG + bytes(sent))[:sent])
            until(lambda: files(s) == [], "what a cut upload wrote goes")
        assert not STORE, "what follows looks into files"
        raw = socket.create_connection(("127.0.0.1", s.port))
        raw.sendall(head + PNG + bytes(5 << 20))
        until(lambda: len(files(s)) == 1, "it is being written")
        s.kill()
        raw.close()
        left = os.path.join(s.folder, "data", "media", files(s)[0])
        s.start()
        time.sleep(1.5)
        assert len(files(s)) == 1, "another process may be at it still"
        s.stop()
        os.utime(left, (time.time() - 8000,) * 2)
        s.start()
        until(lambda: files(s) == [], "an old leftover is swept at the start")
        assert s.stop() == 0
    finally:
        s.remove()


def tampered():
    """Altered, cut, lengthened, put in another order or under another name: a clear error, or an end before the announced one."""
    with server() as s:
        u, other = User(s), User(s)
        data = PNG + os.urandom(6 * CHUNK)
        media, second = u.put(data), u.put(data)
        theirs = other.put(data)
        top = os.path.join(s.folder, "data", "media")
        found = {f[-36:]: os.path.join(top, f) for f in files(s)}
        path = found[media]
        with open(path, "rb") as f:
            good = f.read()
        sealed = CHUNK + SEAL
        a, b = HEAD, HEAD + sealed
        assert len(good) == HEAD + len(data) + 7 * SEAL, len(good)

        def read(**headers):
            try:
                status, _, body = u.http("GET", "/api/media/" + media, **headers)
                return status, body
            except (http.client.IncompleteRead, ConnectionError) as e:
                return "cut", bytes(getattr(e, "partial", b""))

        def put(raw):
            with open(path, "wb") as f:
                f.write(raw)

        def flipped(at):
            return good[:at] + bytes([good[at] ^ 1]) + good[at + 1:]

        for at in (0, 3, 4, 5, 30, 60, HEAD - 1, a, a + 20, a + 100, b - 1):
            put(flipped(at))
            status, body = read()
            assert status == 500 and "damaged" in error(body)["message"], (at, status, body[:100])
        put(flipped(HEAD + 5 * sealed + 99))
        status, body = read()
        assert status == "cut" and data.startswith(body) and len(body) <= 5 * CHUNK, (status, len(body))
        status, body = read(Range="bytes=%d-%d" % (5 * CHUNK, 5 * CHUNK))
        assert status == 500, status
        assert read(Range="bytes=0-9") == (206, data[:10])
        for name, raw in {
            "two pieces the other way round": good[:a] + good[b:b + sealed] + good[a:b] + good[b + sealed:],
            "a piece twice": good[:b] + good[a:b] + good[b + sealed:],
            "cut at a piece": good[:b], "cut by one": good[:-1], "one more": good + b"x", "empty": b"", "a head alone": good[:HEAD],
            "no last piece": good[:HEAD + 6 * sealed],
        }.items():
            put(raw)
            status, body = read()
            assert status == 500 and "damaged" in error(body)["message"], (name, status, body[:100])
        for name, where in (("another of the user's", second), ("another user's", theirs)):
            with open(found[where], "rb") as f:
                put(f.read())
            status, body = read()
            assert status == 500, (name, status)
        put(good)
        assert read() == (200, data)
        with open(s.log_path) as f:
            assert "level=error ev=media.failed" in f.read(), "it is told in the log"


async def canary():
    """No byte of a file, nor its words, in the open anywhere."""
    s = await server().start_async()
    try:
        u = User(s)
        data = PNG + (WORD.encode() + b"-in-a-picture ") * 20000
        media = u.put(data)
        async with Client(s, u.token) as c:
            chat = (await c.open())["chat"]
            await c.reply((await c.ask("send", chat=chat, id="i", text=WORD, media=[media]))["turn"])
        for path in (s.folder,):
            assert not search(path, WORD), search(path, WORD)
            assert not search(path, "in-a-picture"), search(path, "in-a-picture")
        raw = socket.create_connection(("127.0.0.1", s.port))
        raw.sendall(("POST /api/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 9999999\r\n\r\n" % u.token).encode() + data)
        until(lambda: STORE or any(".uploads" in f for f in files(s)), "one is being written")
        s.kill()
        raw.close()
        found = search(s.folder, WORD)
        assert not found, found
        if not STORE:
            with open(os.path.join(s.folder, "data", "media", "planted"), "wb") as f:
                f.write(data)
            assert search(s.folder, WORD), "a planted one is found"
    finally:
        s.remove()


if STORE:  # the bucket
    with_init = server()
    made = with_init.command("init", **{k: v for k, v in os.environ.items() if k.startswith("S3_")})
    assert made.returncode == 0, made.stderr
    with_init.remove()
run([types, sizes_and_ranges, whose, limits, in_chats, forgetting, slow, address_rate, memory, canary] +
    ([] if STORE else [left_by_a_kill, refusing_s3, cut, tampered]))
