"""kill.py [--kills N] [--turns N] [--chats N] [--seed N]: `troupe up` is killed with SIGKILL at random moments while chats go
on; then it is counted what was lost, doubled, out of order or torn.

Every chat is one user with one device or two, one connection each at a time, that reconnects when it is cut, resumes with `after` and
`since`, and asks again what was not answered: up to three messages at once, edits, choices, regenerations and deletions.
Then the same checker must find a planted fault of each sort.
"""
import argparse
import asyncio
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chatter import Chatter, finish  # noqa: E402
from ledger import count  # noqa: E402
from planted import planted_on_the_way  # noqa: E402
from troupe import Server  # noqa: E402

async def killer(server, rng, kills, period, progress):
    for n in range(kills):
        await asyncio.sleep(rng.uniform(0.02, period))
        server.kill()
        await server.start_async()
        if (n + 1) % 20 == 0:
            progress(n + 1)


def start():
    server = Server("stub:?delay_ms=15&gap_ms=4")
    server.env["TROUPE_LOG_LEVEL"] = "info"
    return server.start()


def end(server):
    if os.environ.get("TROUPE_TEST_KEEP"):
        server.kill()
        print("kept", server.folder)
    else:
        server.remove()


async def kill(args, rng):
    server = start()
    goal = asyncio.Event()
    chatters = [Chatter(server, random.Random(rng.random()), n, 0.4, devices=1 + n % 2, rate=args.rate) for n in range(args.chats)]
    for c in chatters:
        c.goal = goal
    begun = time.monotonic()
    accepted = lambda: sum(len(c.ledger.accepted) for c in chatters if c.ledger)  # noqa: E731

    def progress(n):
        print("  %d kills, %d turns accepted, %.0f s" % (n, accepted(), time.monotonic() - begun), flush=True)

    try:
        for c in chatters:
            c.task = asyncio.create_task(c.run())
        await killer(server, rng, args.kills, 1.0, progress)
        while accepted() < args.turns:
            await asyncio.sleep(0.1)
            for c in chatters:
                if c.task.done():
                    c.task.result()
        found = await finish(chatters, 90)
        return found, accepted(), time.monotonic() - begun, count([c.ledger for c in chatters])[0]
    finally:
        end(server)


async def planted(rng):
    server = start()
    try:
        return await planted_on_the_way(lambda _: server, rng)
    finally:
        end(server)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--kills", type=int, default=200)
    p.add_argument("--turns", type=int, default=2000)
    p.add_argument("--chats", type=int, default=50)
    p.add_argument("--rate", type=float, default=0.2, help="how likely a device changes a turn between two pauses")
    p.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    args = p.parse_args()
    print("seed %d" % args.seed)
    failed = 0
    rng = random.Random(args.seed)
    found, turns, seconds, done = asyncio.run(kill(args, rng))
    print("%d kills, %d chats, %d accepted turns, %d changes, %.0f s: %s" % (
        args.kills, args.chats, turns, sum(done.values()), seconds, ", ".join("%d %s" % (len(v), k) for k, v in found.items())))
    for sort, list_ in found.items():
        print("%s kill: %s (%d)" % ("ok" if not list_ else "not ok", sort, len(list_)))
        failed += bool(list_)
        for example in list_[:5]:
            print("   ", example)
    if turns < args.turns:
        print("not ok kill: only %d turns" % turns)
        failed = 1
    for what, ok in asyncio.run(planted(rng)):
        print("%s %s" % ("ok" if ok else "not ok", what))
        failed += not ok
    sys.exit(1 if failed else 0)


main()
