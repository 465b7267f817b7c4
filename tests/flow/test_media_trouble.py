"""Media in trouble: kills, a store that refuses, clients that are slow, many or gone, files that were tampered with; and that
memory stays bounded.  With TROUPE_TEST_MEDIA set on that store (tests/lib/media.py); what looks into files is left out then."""
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
from media import CHUNK, HEAD, NOBODY, PNG, SEAL, STORE, User, error, files, make_store, server, until  # noqa: E402
from troupe import Client, Refused, Server, run  # noqa: E402


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


async def emptied_history():
    """The history was lost, the files were not: nothing goes, whatever the new history does not know; a file of its own does."""
    s = await server().start_async()
    try:
        u = User(s)
        named, unnamed = u.put(PNG), u.put(PNG)
        async with Client(s, u.token) as c:
            chat = (await c.open())["chat"]
            await c.reply((await c.ask("send", chat=chat, id="a", text="a", media=[named]))["turn"])
        before = files(s)
        assert s.stop() == 0
        for name in os.listdir(os.path.join(s.folder, "data")):
            if name.startswith("history"):
                os.remove(os.path.join(s.folder, "data", name))
        await s.start_async()
        own = u.put(PNG)

        def told():
            with open(s.log_path) as f:
                return "ev=media.foreign" in f.read()
        await asyncio.to_thread(until, told, "the walk passes them over, and says so")
        left = [f for f in files(s) if own not in f]
        assert sorted(left) == sorted(before), (before, left)
        assert any(named in f for f in left) and any(unnamed in f for f in left)
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


make_store()
run([slow, address_rate, memory] + ([] if STORE else [left_by_a_kill, emptied_history, refusing_s3, cut, tampered]))
