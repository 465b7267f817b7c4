"""points.py [--times N]: the process kills itself at named points of a message's way (base/fault.h; a build with
-Dfault_points=true), each at least N times, while chats go on; then the same count as in kill.py."""
import argparse
import asyncio
import http.client
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chatter import Chatter, finish  # noqa: E402
import websockets  # noqa: E402
from troupe import Client, Refused, Server  # noqa: E402

POINTS = ["accept.stored", "accept.published", "preprocess.claimed", "preprocess.published", "inference.claimed",
          "inference.generated", "inference.stored", "inference.published", "notifier.claimed", "notifier.published"]


async def point(name, times, seed):
    rng = random.Random(seed)
    server = Server("stub:?delay_ms=5&gap_ms=2", TROUPE_LOG_LEVEL="info", TROUPE_WORKER_TTL_MS=2000).start()
    goal = asyncio.Event()
    chatters = [Chatter(server, random.Random(rng.random()), n, 0.02, devices=1 + n % 2, rate=0.05) for n in range(8)]
    loop = asyncio.get_running_loop()
    died = 0
    try:
        for c in chatters:
            c.goal = goal
            c.task = asyncio.create_task(c.run())
        while died < times:
            server.kill()
            os.environ["TROUPE_TEST_KILL"] = "%s:%d" % (name, rng.randint(1, 30))
            try:
                await server.start_async()
            except RuntimeError:
                died += 1  # what it found at the start was enough to reach the point
                continue
            code = await asyncio.wait_for(loop.run_in_executor(None, server.proc.wait), 60)
            assert code == -9, server.tail()
            died += 1
        os.environ.pop("TROUPE_TEST_KILL")
        server.kill()
        await server.start_async()
        found = await finish(chatters, 60)
        turns = sum(len(c.ledger.accepted) for c in chatters if c.ledger)
        broken = {k: v[:3] for k, v in found.items() if v}
        print("%s %s: %d kills, %d turns %s" % ("not ok" if broken else "ok", name, died, turns, broken or ""), flush=True)
        return not broken
    finally:
        os.environ.pop("TROUPE_TEST_KILL", None)
        server.remove()


async def changes(times, seed):
    """Killed between the row of a regeneration or a stop and its call to work: once the chat is opened again the variant comes,
    and so does the reply of a message that was written and never accepted, whose client never came back to send it again."""
    rng = random.Random(seed)
    server = Server("stub:?delay_ms=150&gap_ms=5", TROUPE_LOG_LEVEL="info").start()
    loop = asyncio.get_running_loop()
    stuck, asked = [], 0
    try:
        token = server.session()["token"]
        for n in range(times):
            async with Client(server, token) as c:
                chat = (await c.open("mira"))["chat"]
                turn = await c.say(chat, "turn %d" % n)
                await c.reply(turn)
            server.kill()
            kind = ("regenerate", "stop", "send")[n % 3]
            os.environ["TROUPE_TEST_KILL"] = "accept.stored:1" if kind == "send" else "change.stored:1"
            await server.start_async()
            os.environ.pop("TROUPE_TEST_KILL")
            c = await Client(server, token).connect()
            await c.open(chat=chat)
            try:
                if kind == "send":
                    await c.say(chat, "never accepted", timeout=5)
                elif kind == "stop":
                    running = await c.say(chat, "to be stopped")
                    await c.ask("stop", turn=running, timeout=5)
                else:
                    await c.ask("regenerate", turn=turn, timeout=5)
                raise AssertionError("it was not killed")
            except (ConnectionError, OSError, asyncio.TimeoutError, websockets.WebSocketException):
                asked += 1
            assert await asyncio.wait_for(loop.run_in_executor(None, server.proc.wait), 20) == -9
            server.kill()
            await server.start_async()
            async with Client(server, token) as c:
                await c.open(chat=chat)
                for _ in range(100):
                    turns = (await c.ask("history", chat=chat))["turns"]
                    running = [t["turn"] for t in turns for v in t["variants"] if v["finish"] is None]
                    if not running and not [t for t in turns if not t["variants"]]:
                        break
                    await asyncio.sleep(0.1)
                else:
                    stuck.append((kind, chat, turns[-1]))
        print("%s change.stored: %d kills, %d left running %s" % ("not ok" if stuck else "ok", asked, len(stuck), stuck[:2]), flush=True)
        return not stuck
    finally:
        os.environ.pop("TROUPE_TEST_KILL", None)
        server.remove()


async def gone(c, turn, chat):
    """Ask again, after the kill; whatever is answered, nothing is left."""
    try:
        await c.ask("delete", turn=turn)
    except Refused as e:
        assert e.code == "not_found", e.frame
    turns = (await c.ask("history", chat=chat))["turns"]
    assert not [t for t in turns if t["turn"] == turn], turns


async def deletions(times, seed):
    """Killed between a deletion's row and its telling, of a turn and of a chat: it is deleted, nothing of it is shown, and whoever
    asks again is answered."""
    rng = random.Random(seed)
    server = Server("stub:", TROUPE_LOG_LEVEL="info").start()
    loop = asyncio.get_running_loop()
    broken, asked = [], 0
    try:
        token = server.session()["token"]
        header = {"Authorization": "Bearer " + token}
        for n in range(times):
            point = ("change.stored", "forget.deleted")[n % 2]
            async with Client(server, token) as c:
                chat = (await c.open("mira"))["chat"]
                turns = [await c.say(chat, "turn %d %d" % (n, k)) for k in range(3)]
                await c.reply(turns[-1])
            server.kill()
            os.environ["TROUPE_TEST_KILL"] = point + ":1"
            await server.start_async()
            os.environ.pop("TROUPE_TEST_KILL")
            turn = rng.choice(turns)
            try:
                if point == "change.stored":
                    c = await Client(server, token).connect()
                    await c.open(chat=chat)
                    await c.ask("delete", turn=turn, timeout=5)
                else:
                    await asyncio.to_thread(server.http, "DELETE", "/api/chats/" + chat, None, header)
                raise AssertionError("it was not killed")
            except (ConnectionError, OSError, asyncio.TimeoutError, http.client.HTTPException, websockets.WebSocketException):
                asked += 1
            assert await asyncio.wait_for(loop.run_in_executor(None, server.proc.wait), 20) == -9
            server.kill()
            await server.start_async()
            async with Client(server, token) as c:
                if point == "change.stored":
                    await c.open(chat=chat)
                    await gone(c, turn, chat)
                    continue
                status, _, _ = await asyncio.to_thread(server.http, "DELETE", "/api/chats/" + chat, None, header)
                listed = (await asyncio.to_thread(server.http, "GET", "/api/chats", None, header))[2]
                if status != 404 or chat in str(listed):
                    broken.append((point, chat, status, listed))
        print("%s deletions: %d kills %s" % ("not ok" if broken else "ok", asked, broken[:2] or ""), flush=True)
        return not broken
    finally:
        os.environ.pop("TROUPE_TEST_KILL", None)
        server.remove()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--times", type=int, default=20)
    p.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    p.add_argument("points", nargs="*", default=POINTS)
    args = p.parse_args()
    print("seed %d" % args.seed)
    ok = [asyncio.run(point(name, args.times, args.seed)) for name in args.points or POINTS]
    if not args.points or args.points == POINTS:
        ok.append(asyncio.run(changes(max(args.times, 3), args.seed)))
        ok.append(asyncio.run(deletions(max(args.times, 4), args.seed)))
    sys.exit(0 if all(ok) else 1)


main()
