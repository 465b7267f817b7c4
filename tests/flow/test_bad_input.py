"""A table of bad inputs with the exact error of each (contract 3.8, 6, 7), and that they change nothing."""
import asyncio
import json
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import websockets  # noqa: E402
from troupe import Client, Server, run  # noqa: E402

NOBODY = "01890000-0000-7000-8000-000000000000"

# what is sent -> code, field, a part of the message
FRAMES = [
    ("{", "bad_request", None, "JSON"),
    ("[]", "bad_request", None, "object"),
    ('"x"', "bad_request", None, "object"),
    ("{}", "bad_request", "ref", "ref: missing"),
    ('{"type":1,"ref":"a"}', "bad_request", "type", "type"),
    ('{"type":"dance","ref":"a"}', "bad_request", "type", "type: unknown"),
    ('{"type":"ping"}', "bad_request", "ref", "ref"),
    ('{"type":"ping","ref":""}', "bad_request", "ref", "ref"),
    ('{"type":"ping","ref":7}', "bad_request", "ref", "ref"),
    (json.dumps({"type": "ping", "ref": "x" * 65}), "bad_request", "ref", "64"),
    ('{"type":"open","ref":"a"}', "bad_request", "chat", "character"),
    ('{"type":"open","ref":"a","character":"No Such"}', "bad_request", "character", "character"),
    ('{"type":"open","ref":"a","character":"nobody"}', "not_found", None, "character"),
    ('{"type":"open","ref":"a","chat":"x"}', "bad_request", "chat", "UUID"),
    ('{"type":"open","ref":"a","chat":"%s"}' % NOBODY, "not_found", None, "chat"),
    ('{"type":"open","ref":"a","chat":"CHAT","after":"x"}', "bad_request", "after", "UUID"),
    ('{"type":"open","ref":"a","chat":"CHAT","since":-1}', "bad_request", "since", "since"),
    ('{"type":"open","ref":"a","character":"mira","id":"%s"}' % ("i" * 65), "bad_request", "id", "64"),
    ('{"type":"send","ref":"a","id":"i","text":"t"}', "bad_request", "chat", "chat"),
    ('{"type":"send","ref":"a","chat":"CHAT","text":"t"}', "bad_request", "id", "id"),
    ('{"type":"send","ref":"a","chat":"CHAT","id":"","text":"t"}', "bad_request", "id", "id"),
    ('{"type":"send","ref":"a","chat":"CHAT","id":"%s","text":"t"}' % ("é" * 65), "bad_request", "id", "64"),
    ('{"type":"send","ref":"a","chat":"CHAT","id":"i"}', "bad_request", "text", "text"),
    ('{"type":"send","ref":"a","chat":"CHAT","id":"i","text":5}', "bad_request", "text", "text"),
    ('{"type":"send","ref":"a","chat":"CHAT","id":"i","text":""}', "bad_request", "text", "empty"),
    ('{"type":"send","ref":"a","chat":"CHAT","id":"i","text":" \\u200b\\n "}', "bad_request", "text", "empty"),
    ('{"type":"send","ref":"a","chat":"CHAT","id":"i","text":"\\ud800"}', "bad_request", None, ""),
    (json.dumps({"type": "send", "ref": "a", "chat": "CHAT", "id": "i", "text": "x" * 8001}), "too_large", "text", "8000"),
    ('{"type":"send","ref":"a","chat":"CHAT","id":"i","text":"t","media":["%s"]}' % NOBODY, "bad_request", "media", "media"),
    ('{"type":"send","ref":"a","chat":"%s","id":"i","text":"t"}' % NOBODY, "not_found", None, "chat"),
    ('{"type":"stop","ref":"a"}', "bad_request", "turn", "turn"),
    ('{"type":"stop","ref":"a","turn":"%s"}' % NOBODY, "not_found", None, "turn"),
    ('{"type":"regenerate","ref":"a","turn":"%s"}' % NOBODY, "not_found", None, "turn"),
    ('{"type":"regenerate","ref":"a","turn":"TURN","variant":"1"}', "bad_request", "variant", "variant"),
    ('{"type":"regenerate","ref":"a","turn":"TURN","variant":9}', "conflict", None, ""),
    ('{"type":"choose","ref":"a","turn":"TURN"}', "bad_request", "variant", "variant"),
    ('{"type":"choose","ref":"a","turn":"TURN","variant":3}', "bad_request", "variant", "variant"),
    ('{"type":"choose","ref":"a","turn":"TURN","variant":-1}', "bad_request", "variant", "variant"),
    ('{"type":"edit","ref":"a","turn":"TURN"}', "bad_request", "text", "text"),
    ('{"type":"edit","ref":"a","turn":"TURN","text":""}', "bad_request", "text", "empty"),
    ('{"type":"edit","ref":"a","turn":"%s","text":"t"}' % NOBODY, "not_found", None, "turn"),
    ('{"type":"delete","ref":"a","turn":"%s"}' % NOBODY, "not_found", None, "turn"),
    ('{"type":"history","ref":"a","chat":"CHAT","limit":0}', "bad_request", "limit", "limit"),
    ('{"type":"history","ref":"a","chat":"CHAT","limit":"5"}', "bad_request", "limit", "limit"),
    ('{"type":"history","ref":"a","chat":"CHAT","before":"x"}', "bad_request", "before", "UUID"),
    ('{"type":"history","ref":"a","chat":"%s"}' % NOBODY, "not_found", None, "chat"),
]

# method, path, headers, body -> status, code, field
HTTP = [
    ("GET", "/api/characters/nobody", {}, None, 404, "not_found", None),
    ("GET", "/api/characters/No%20Such", {}, None, 400, "bad_request", None),
    ("GET", "/api/characters/nobody/avatar", {}, None, 404, "not_found", None),
    ("GET", "/api/chats", {"Authorization": ""}, None, 401, "unauthorized", None),
    ("GET", "/api/chats", {"Authorization": "Bearer nonsense"}, None, 401, "unauthorized", None),
    ("GET", "/api/chats/x/turns", {}, None, 400, "bad_request", None),
    ("GET", "/api/chats/%s/turns" % NOBODY, {}, None, 404, "not_found", None),
    ("GET", "/api/chats/CHAT/turns?limit=0", {}, None, 400, "bad_request", "limit"),
    ("GET", "/api/chats/CHAT/turns?limit=x", {}, None, 400, "bad_request", "limit"),
    ("GET", "/api/chats/CHAT/turns?before=x", {}, None, 400, "bad_request", "before"),
    ("DELETE", "/api/chats/x", {}, None, 400, "bad_request", None),
    ("DELETE", "/api/chats/%s" % NOBODY, {}, None, 404, "not_found", None),
    ("GET", "/api/media/%s" % NOBODY, {}, None, 404, "not_found", None),
    ("GET", "/nothing", {}, None, 404, "not_found", None),
    ("GET", "/../../etc/passwd", {}, None, 404, "not_found", None),
    ("PUT", "/api/session", {}, b"", 405, None, None),
    ("DELETE", "/api/characters", {}, None, 405, None, None),
    ("POST", "/api/session", {"Origin": "https://evil.example"}, b"", 403, None, None),
]

server = None


async def chat_of(c):
    opened = await c.open("mira")
    turn = await c.say(opened["chat"], "hello")
    await c.reply(turn)
    return opened["chat"], turn


async def frames():
    async with Client(server) as c:
        chat, turn = await chat_of(c)
        before = (await c.ask("history", chat=chat, limit=200))["turns"]
        wrong = []
        for text, code, field, part in FRAMES:
            c.events.clear()
            ref = None
            body = text.replace("CHAT", chat).replace("TURN", turn)
            try:
                ref = json.loads(text).get("ref") if "ud800" not in text else None  # no JSON: a lone surrogate
            except (ValueError, AttributeError):
                pass
            await c.ws.send(body)
            e = await c.until(lambda e: e["type"] == "error", 5)
            want_ref = ref if isinstance(ref, str) and 0 < len(ref) <= 64 else None
            if e["code"] != code or (field and e.get("field") != field) or part.lower() not in e["message"].lower() \
                    or e.get("ref") != want_ref:
                wrong.append((text[:100], (code, field, part), e))
        assert not wrong, "\n".join(map(str, wrong))
        assert (await c.ask("history", chat=chat, limit=200))["turns"] == before, "a bad input changed the chat"
        assert (await c.ask("ping"))["type"] == "pong"
    print("   %d frames" % len(FRAMES))


async def http_requests():
    async with Client(server) as c:
        chat, _ = await chat_of(c)
        wrong = []
        for method, path, headers, body, status, code, field in HTTP:
            h = {"Authorization": "Bearer " + c.token, **headers}
            h = {k: v for k, v in h.items() if v}
            s, got_headers, text = server.http(method, path.replace("CHAT", chat), body, h)
            try:
                error = json.loads(text)["error"]
            except (ValueError, KeyError):
                error = {}
            if s != status or (code and error.get("code") != code) or (field and error.get("field") != field) \
                    or not error.get("message"):
                wrong.append(((method, path, headers), (status, code, field), (s, text[:200])))
        assert not wrong, "\n".join(map(str, wrong))
    print("   %d requests" % len(HTTP))


def raw(data, timeout=5):
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.settimeout(timeout)
        s.sendall(data)
        got = b""
        try:
            while True:
                part = s.recv(65536)
                if not part:
                    break
                got += part
                if b"\r\n\r\n" in got and b'"error"' in got:
                    break
        except (TimeoutError, ConnectionError):
            pass
        return got


def below_our_routes():
    """A JSON error where the parser gets that far, else the status alone; never a library's page or a file's name."""
    for data in (b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"b" * 70000 + b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
                 b"POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                 b"POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
                 b"BREW /api/session HTTP/1.1\r\nHost: x\r\n\r\n"):
        got = raw(data, 2)
        assert b"<html" not in got.lower() and b"libwebsockets" not in got.lower() and b"/usr" not in got, (data[:40], got)
    assert server.http("GET", "/healthz")[0] == 200


async def handshakes():
    token = server.session()["token"]

    async def status(headers, protocols=("troupe.v1",), origin=None):
        try:
            ws = await websockets.connect(server.url.replace("http", "ws") + "/ws", subprotocols=protocols,
                                          additional_headers=headers, origin=origin, compression=None)
            await ws.close()
            return 101
        except websockets.InvalidStatus as e:
            return e.response.status_code
    good = {"Authorization": "Bearer " + token}
    own = "http://127.0.0.1:%d" % server.port
    rows = [
        (good, ("troupe.v1",), None, 101),
        ({"Cookie": "a=b; troupe_session=" + token}, ("troupe.v1",), own, 101),
        (good, ("troupe.v1",), "http://localhost:%d" % server.port, 101),
        (good, ("troupe.v1",), "https://evil.example", 403),
        ({}, ("troupe.v1",), "https://evil.example", 403),
        ({}, ("other",), "null", 403),
        ({}, ("troupe.v1",), own, 401),
        ({}, ("troupe.v1",), None, 401),
        ({}, None, None, 401),
        ({"Authorization": "Bearer " + token[:-2] + "xx"}, ("troupe.v1",), None, 401),
        (good, None, None, 400),
        (good, ("other",), None, 400),
    ]
    wrong = [(row, got) for row in rows if (got := await status(*row[:3])) != row[3]]
    assert not wrong, wrong
    print("   %d handshakes" % len(rows))


async def closes():
    """What ends a connection, with which code."""
    async def code(send):
        async with Client(server) as c:
            await send(c)
            for _ in range(200):
                if c.closed is not None:
                    return c.closed
                await asyncio.sleep(0.02)
        return None

    async def big(c):
        await c.ws.send("x" * 131073)

    async def fits(c):
        await c.ws.send('{"type":"ping","ref":"a","x":"%s"}' % ("x" * (131072 - 33)))
        await c.until(lambda e: e["type"] == "pong")
        await c.ws.close(1000)

    async def pieces(c):
        async def gen():
            for _ in range(40):
                yield "x" * 4000
        await c.ws.send(gen())

    async def binary(c):
        await c.ws.send(b"\x00\x01")

    async def bad_utf8(c):
        await c.ws.send(b"\xff\xfe{}", text=True)
    rows = [("a message of 131073 bytes", big, 1009), ("a message of 131072 bytes", fits, 1000), ("fragments of 160000 bytes", pieces, 1009),
            ("a binary message", binary, 1003), ("invalid UTF-8", bad_utf8, 1007)]
    wrong = [(name, want, got) for name, send, want in rows if (got := await code(send)) != want]
    assert not wrong, wrong


async def full_length_escaped():
    """The longest message fits a frame even if every character is escaped (contract 11.18)."""
    async with Client(server) as c:
        chat = (await c.open("mira"))["chat"]
        await c.ws.send('{"type":"send","ref":"big","chat":"%s","id":"big","text":"%s"}' % (chat, "\\ud83c\\udf0a" * 8000))
        e = await c.until(lambda e: e.get("ref") == "big", 10)
        assert e["type"] == "accepted", e
        reply = await c.reply(e["turn"])
        assert reply["text"].count("🌊") == 8000


def main():
    global server
    with Server() as server:
        run([frames, http_requests, below_our_routes, handshakes, closes, full_length_escaped])


main()
