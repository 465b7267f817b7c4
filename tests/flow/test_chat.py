"""A whole message's way, as a client sees it: streaming, Stop, variants, edits, deletions, resume, several connections."""
import asyncio
import json
import os
import signal
import sys
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from troupe import Client, Refused, Server, run  # noqa: E402

quick = slow = None


def text_of(turn):
    return turn["variants"][turn["chosen"]]["text"]


async def refused(code, awaitable):
    try:
        await awaitable
    except Refused as e:
        assert e.code == code, e
        return e.frame
    raise AssertionError("was not refused")


async def whole_chat():
    async with Client(quick) as c:
        opened = await c.open("mira")
        chat = opened["chat"]
        greeting = opened["turns"][0]
        assert opened["character"]["id"] == "mira" and opened["character"]["name"] == "Mira"
        assert greeting.get("text") is None and len(greeting["variants"]) >= 2 and greeting["chosen"] == 0 or greeting["chosen"] >= 0
        assert isinstance(opened["change"], int) and opened["more"] is False
        turns = [greeting["turn"]]
        for n in range(20):
            turn = await c.say(chat, "message %d, größer 🌊" % n)
            r = await c.reply(turn)
            assert r["text"] == "Mira heard: message %d, größer 🌊" % n and r["finish"] == "stop", r
            assert set(r["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"} and "ttft_ms" in r
            turns.append(turn)
        assert turns == sorted(turns)
        for turn in turns[1:]:
            text = b""
            for d in (e for e in c.events if e["type"] == "delta" and e["turn"] == turn):
                assert d["offset"] == len(text), d
                text += d["text"].encode()
            assert (await c.reply(turn))["text"].encode().startswith(text)
        listed = (await c.ask("history", chat=chat, limit=200))["turns"]
        assert [t["turn"] for t in listed] == turns
        page = (await c.ask("history", chat=chat, before=turns[10], limit=3))["turns"]
        assert [t["turn"] for t in page] == turns[7:10]
        status, _, body = quick.http("GET", "/api/chats/%s/turns?limit=2" % chat, None, {"Authorization": "Bearer " + c.token})
        assert status == 200 and [t["turn"] for t in json.loads(body)["turns"]] == turns[-2:]
        chats = json.loads(quick.http("GET", "/api/chats", None, {"Authorization": "Bearer " + c.token})[2])["chats"]
        assert [x["chat"] for x in chats] == [chat] and chats[0]["character"] == "mira"


async def same_id_same_turn():
    async with Client(quick) as c:
        chat = (await c.open("mira"))["chat"]
        turns = await asyncio.gather(*(c.say(chat, "text %d" % n, id="one") for n in range(5)))
        assert len(set(turns)) == 1
        await c.reply(turns[0])
        assert await c.say(chat, "another text", id="one") == turns[0]
        await asyncio.sleep(0.3)
        listed = (await c.ask("history", chat=chat, limit=200))["turns"]
        assert len([t for t in listed if t.get("text") is not None]) == 1
        assert sum(e["type"] == "reply" for e in c.events) == 1
    a, b = Client(quick), None
    async with a:
        one = await a.open("mira", id="open-1")
        two = await a.open("mira", id="open-1")
        assert one["chat"] == two["chat"]
        b = Client(quick)
        async with b:  # the same id of another user is another chat
            assert (await b.open("mira", id="open-1"))["chat"] != one["chat"]
            await refused("not_found", b.open(chat=one["chat"]))
            await refused("not_found", b.say(one["chat"], "not mine"))
            assert quick.http("DELETE", "/api/chats/" + one["chat"], None, {"Authorization": "Bearer " + b.token})[0] == 404


async def many_at_once_in_order():
    async with Client(slow) as c:
        chat = (await c.open("mira"))["chat"]
        turns = await asyncio.gather(*(c.say(chat, "n%d" % n) for n in range(12)))
        assert turns == sorted(turns)
        await c.reply(turns[-1], timeout=60)
        replies = [e["turn"] for e in c.events if e["type"] == "reply"]
        assert replies == turns, (replies, turns)
        assert any(e["type"] == "status" and e["state"] in ("thinking", "writing") for e in c.events)


async def stop_while_writing():
    async with Client(slow) as c:
        chat = (await c.open("mira"))["chat"]
        turn = await c.say(chat, " ".join("w%d" % n for n in range(200)))
        await c.until(lambda e: e["type"] == "delta" and e["turn"] == turn and e["offset"] > 10)
        await c.ask("stop", turn=turn)
        r = await c.reply(turn)
        assert r["finish"] == "stopped" and 10 < len(r["text"]) < 700, r
        after = len(c.events)
        await asyncio.sleep(0.4)
        assert not [e for e in c.events[after:] if e["type"] == "delta"]
        await c.ask("stop", turn=turn)  # finished: nothing changes
        listed = (await c.ask("history", chat=chat))["turns"][-1]
        assert text_of(listed) == r["text"] and listed["variants"][0]["finish"] == "stopped"
        assert (await c.reply(await c.say(chat, "go on")))["text"] == "Mira heard: go on"


async def stop_while_queued():
    async with Client(slow) as c:
        chat = (await c.open("mira"))["chat"]
        first = await c.say(chat, " ".join("w%d" % n for n in range(60)))
        second = await c.say(chat, "the second")
        third = await c.say(chat, "the third")
        await c.ask("stop", turn=second)
        r = await c.reply(second, timeout=30)
        assert r["finish"] == "stopped" and r["text"] == "", r
        assert (await c.reply(first, timeout=30))["finish"] == "stop"
        assert (await c.reply(third, timeout=30))["text"] == "Mira heard: the third"
        order = [e["turn"] for e in c.events if e["type"] == "reply"]
        assert order == [first, second, third], order


async def variants():
    async with Client(quick) as c:
        chat = (await c.open("mira"))["chat"]
        turn = await c.say(chat, "once")
        await c.reply(turn)
        got = await c.ask("regenerate", turn=turn)
        assert got["type"] == "ok" and got["variant"] == 1, got
        await c.reply(turn, 1)
        changed = await c.until(lambda e: e["type"] == "changed" and e["turn"]["turn"] == turn and e["turn"]["chosen"] == 1)
        assert len(changed["turn"]["variants"]) == 2
        again = await c.ask("regenerate", turn=turn, variant=1)  # the same wish again: no new variant
        assert again["variant"] == 1
        await c.ask("choose", turn=turn, variant=0)
        listed = (await c.ask("history", chat=chat))["turns"][-1]
        assert listed["chosen"] == 0 and len(listed["variants"]) == 2
        await c.ask("regenerate", turn=turn)
        await c.reply(turn, 2)
        listed = (await c.ask("history", chat=chat))["turns"][-1]
        assert listed["chosen"] == 2, "a new variant is chosen when it is stored"
        greeting = (await c.ask("history", chat=chat))["turns"][0]
        await c.ask("choose", turn=greeting["turn"], variant=1)
        assert (await c.ask("history", chat=chat))["turns"][0]["chosen"] == 1
        await refused("bad_request", c.ask("regenerate", turn=greeting["turn"]))


async def running_variant_conflicts():
    async with Client(slow) as c:
        chat = (await c.open("mira"))["chat"]
        turn = await c.say(chat, " ".join("w%d" % n for n in range(40)))
        await refused("conflict", c.ask("regenerate", turn=turn))
        await c.reply(turn, timeout=30)


async def edit_and_delete():
    async with Client(quick) as c, Client(quick, c.token) as other:
        chat = (await c.open("mira"))["chat"]
        await other.open(chat=chat)
        first = await c.say(chat, "first")
        second = await c.say(chat, "second")
        await c.reply(second)
        await c.ask("edit", turn=first, text="better")
        e = await other.until(lambda e: e["type"] == "changed" and e["turn"]["turn"] == first)
        assert e["turn"]["text"] == "better" and text_of(e["turn"]) == "Mira heard: first"
        await c.ask("regenerate", turn=first)
        assert (await c.reply(first, 1))["text"] == "Mira heard: better"
        await c.ask("delete", turn=first)
        await other.until(lambda e: e["type"] == "deleted" and e["turn"] == first)
        listed = (await c.ask("history", chat=chat))["turns"]
        assert [t["turn"] for t in listed][-1] == second and first not in [t["turn"] for t in listed]
        await refused("not_found", c.ask("edit", turn=first, text="x"))
        third = await c.say(chat, "third")
        assert (await c.reply(third))["text"] == "Mira heard: third"
        status, _, _ = quick.http("DELETE", "/api/chats/" + chat, None, {"Authorization": "Bearer " + c.token})
        assert status == 204
        await refused("not_found", c.ask("history", chat=chat))
        await refused("not_found", c.say(chat, "gone"))
        assert json.loads(quick.http("GET", "/api/chats", None, {"Authorization": "Bearer " + c.token})[2])["chats"] == []


async def delete_while_writing():
    async with Client(slow) as c:
        chat = (await c.open("mira"))["chat"]
        turn = await c.say(chat, " ".join("w%d" % n for n in range(200)))
        nxt = await c.say(chat, "next")
        await c.until(lambda e: e["type"] == "delta" and e["turn"] == turn)
        await c.ask("delete", turn=turn)
        assert (await c.reply(nxt, timeout=10))["text"] == "Mira heard: next"
        assert not [e for e in c.events if e["type"] == "reply" and e["turn"] == turn]


async def two_connections():
    async with Client(slow) as a, Client(slow, a.token) as b:
        chat = (await a.open("mira"))["chat"]
        await b.open(chat=chat)
        turn = await a.say(chat, "for both of us " + "x " * 20)
        e = await b.until(lambda e: e["type"] == "turn")
        assert e["turn"]["turn"] == turn and e["turn"]["text"].startswith("for both")
        ra, rb = await a.reply(turn), await b.reply(turn)
        assert ra["text"] == rb["text"]
        assert not [e for e in a.events if e["type"] == "turn"]
        kinds = [e["type"] for e in b.events if e.get("turn") == turn or (e["type"] == "turn" and e["turn"]["turn"] == turn)]
        assert kinds[0] == "turn" and kinds[-1] == "reply" and kinds.count("reply") == 1, kinds


async def open_in_mid_reply():
    """Another connection comes in while a reply is being written: the text so far, then deltas from there."""
    async with Client(slow) as a:
        chat = (await a.open("mira"))["chat"]
        turn = await a.say(chat, " ".join("word%d" % n for n in range(60)))
        await a.until(lambda e: e["type"] == "delta" and e["offset"] > 40)
        async with Client(slow, a.token) as b:
            opened = await b.open(chat=chat)
            v = [t for t in opened["turns"] if t["turn"] == turn][0]["variants"][0]
            assert v["finish"] is None and len(v["text"]) > 40, v
            held = v["text"].encode()
            r = await b.reply(turn)
            for d in (e for e in b.events if e["type"] == "delta"):
                assert d["offset"] <= len(held), "gap"
                held = held[: d["offset"]] + d["text"].encode()
            assert held == r["text"].encode()
        await a.reply(turn)


async def resume_after_and_since():
    async with Client(quick) as c:
        opened = await c.open("mira")
        chat = opened["chat"]
        turns = []
        for n in range(60):
            turns.append(await c.say(chat, "m%d" % n))
        await c.reply(turns[-1])
        got = await c.open(chat=chat)
        assert [t["turn"] for t in got["turns"]] == turns[-50:]
        change = got["change"]
        got = await c.open(chat=chat, after=turns[2])
        assert [t["turn"] for t in got["turns"]] == turns[3:53] and got["more"] is True
        got = await c.open(chat=chat, after=turns[52])
        assert [t["turn"] for t in got["turns"]] == turns[53:] and got["more"] is False
        async with Client(quick, c.token) as other:
            await other.open(chat=chat)
            await other.ask("edit", turn=turns[5], text="edited")
            await other.ask("delete", turn=turns[6])
        async with Client(quick, c.token) as back:
            got = await back.open(chat=chat, after=turns[-1], since=change)
            assert got["turns"] == [] and got["change"] > change
            await back.until(lambda e: e["type"] == "changed" and e["turn"]["turn"] == turns[5] and e["turn"]["text"] == "edited")
            await back.until(lambda e: e["type"] == "deleted" and e["turn"] == turns[6])


async def killed_and_back():
    """SIGKILL in mid-reply: after the restart the reply comes on the connection that resumes."""
    with Server("stub:?delay_ms=50&gap_ms=30") as s:
        c = await Client(s).connect()
        chat = (await c.open("mira"))["chat"]
        turn = await c.say(chat, "this will be cut " + "x " * 20)
        await c.until(lambda e: e["type"] == "delta")
        s.kill()
        await c.reader
        await s.start_async()
        async with Client(s, c.token) as b:
            opened = await b.open(chat=chat)
            mine = opened["turns"][-1]
            assert mine["turn"] == turn
            if not (mine["variants"] and mine["variants"][0]["finish"]):
                assert (await b.reply(turn))["text"].startswith("Mira heard: this will be cut")


async def limits():
    with Server("stub:", TROUPE_RATE_USER=10, TROUPE_TEXT_MAX=100) as s:
        async with Client(s) as c:
            chat = (await c.open("mira"))["chat"]
            frame = None
            for n in range(30):
                try:
                    await c.say(chat, "m%d" % n)
                except Refused as e:
                    frame = e.frame
                    break
            assert frame and frame["code"] == "rate_limited" and 0 < frame["retry_after_ms"] <= 60000, frame
            assert n >= 2
            await refused("too_large", c.say(chat, "x" * 101))
    with Server("stub:?delay_ms=3000", TROUPE_QUEUE_MAX=5) as s:
        async with Client(s) as c:
            chats = [(await c.open("mira"))["chat"] for _ in range(12)]
            codes = []
            for chat in chats:
                try:
                    await c.say(chat, "hi")
                    codes.append("accepted")
                except Refused as e:
                    codes.append(e.code)
            assert codes[:4] == ["accepted"] * 4 and codes[-1] == "overloaded" and set(codes) == {"accepted", "overloaded"}, codes


async def failing_engine():
    """A turn that fails for good: one error event, listed with that finish; the next turn goes on."""
    with Server("stub:?fail_word=crash") as s:
        async with Client(s) as c:
            chat = (await c.open("mira"))["chat"]
            turn = await c.say(chat, "please crash")
            nxt = await c.say(chat, "and then")
            e = await c.reply(turn, timeout=60)
            assert e["type"] == "error" and e["code"] == "engine_failed" and e["chat"] == chat, e
            assert (await c.reply(nxt, timeout=30))["text"] == "Mira heard: and then"
            listed = [t for t in (await c.ask("history", chat=chat))["turns"] if t["turn"] == turn][0]
            assert listed["variants"][0]["finish"] == "error"
            await asyncio.sleep(0.5)
            assert len([e for e in c.events if e.get("turn") == turn and e["type"] in ("error", "reply")]) == 1


async def sessions():
    one = quick.session()
    assert quick.session(one["token"])["user"] == one["user"]
    assert quick.session()["user"] != one["user"]
    status, headers, _ = quick.http("POST", "/api/session", b"")
    cookie = headers["Set-Cookie"]
    assert status == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie, cookie
    for path in ("/healthz", "/readyz", "/metrics", "/", "/app.js", "/app.css"):
        status, headers, body = quick.http("GET", path)
        assert status == 200 and body, path
    assert "default-src 'none'" in quick.http("GET", "/")[1]["Content-Security-Policy"]
    listed = json.loads(quick.http("GET", "/api/characters")[2])["characters"]
    assert {"mira", "barnaby", "juno"} <= {c["id"] for c in listed}
    for c in listed:
        status, headers, body = quick.http("GET", c["avatar"])
        assert status == 200 and headers["Content-Type"].startswith("image/") and headers["X-Content-Type-Options"] == "nosniff"


async def token_outlives_restart():
    with Server("stub:") as s:
        async with Client(s) as c:
            chat = (await c.open("mira"))["chat"]
        assert s.stop() == 0
        await s.start_async()
        async with Client(s, c.token) as c2:
            assert (await c2.open(chat=chat))["chat"] == chat


async def slow_reader():
    """One that does not read loses deltas, then its connection; nobody else notices, and resuming gives all."""
    with Server("stub:?delay_ms=1", TROUPE_SEND_BUFFER_KIB=64) as s:
        async with Client(s) as c:
            chat = (await c.open("mira"))["chat"]
            lazy = Client(s, c.token)
            await lazy.connect()
            await lazy.open(chat=chat)
            lazy.reader.cancel()
            lazy.ws.transport.pause_reading()
            last = None
            for n in range(60):
                last = await c.say(chat, "%d " % n + "pad " * 1900)
                await c.reply(last)
            assert s.proc.poll() is None
            rss = int(open("/proc/%d/statm" % s.proc.pid).read().split()[1]) * 4096
            assert rss < 600e6, rss
            lazy.ws.transport.abort()
            async with Client(s, c.token) as back:
                opened = await back.open(chat=chat)
                assert opened["turns"][-1]["turn"] == last


def main():
    global quick, slow
    with Server("stub:") as quick, Server("stub:?delay_ms=30&gap_ms=15") as slow:
        run([whole_chat, same_id_same_turn, many_at_once_in_order, stop_while_writing, stop_while_queued, variants,
             running_variant_conflicts, edit_and_delete, delete_while_writing, two_connections, open_in_mid_reply,
             resume_after_and_since, killed_and_back, limits, failing_engine, sessions, token_outlives_restart, slow_reader])


main()
