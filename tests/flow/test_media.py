"""Media (contract 6, 7, 10): files of chats through the real program: what is taken, how it rests, who may see it, and what goes
with it.  With TROUPE_TEST_MEDIA set the same on that store (tests/lib/media.py)."""
import asyncio
import http.client
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from canary import WORD, search  # noqa: E402
from media import CHUNK, HEAD, NOBODY, PNG, REFUSED, STORE, TYPES, User, error, files, make_store, server, until  # noqa: E402
from troupe import Client, Refused, run  # noqa: E402


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


make_store()
run([types, sizes_and_ranges, whose, limits, in_chats, forgetting, canary])
