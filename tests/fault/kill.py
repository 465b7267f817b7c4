"""kill.py [--kills N] [--turns N] [--chats N] [--seed N]: `troupe up` is killed with SIGKILL at random moments while chats go
on; then it is counted what was lost, doubled, out of order or torn.

Every chat is one user with one connection at a time that sends up to three messages at once, reconnects when it is cut,
resumes with `after`, and sends again what was not accepted.  Then the same checker must find a planted fault of each sort.
"""
import argparse
import asyncio
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chatter import Chatter, Planter, finish  # noqa: E402
from troupe import Server  # noqa: E402

async def killer(server, rng, kills, period, progress):
    for n in range(kills):
        await asyncio.sleep(rng.uniform(0.02, period))
        server.kill()
        await server.start_async()
        if (n + 1) % 20 == 0:
            progress(n + 1)


async def round_(seed, kills, turns, chats, pause, period, sort=None, quiet=False):
    rng = random.Random(seed)
    server = Server("stub:?delay_ms=15&gap_ms=4")
    server.env["TROUPE_LOG_LEVEL"] = "info"
    server.start()
    goal = asyncio.Event()
    chatters = [Chatter(server, random.Random(rng.random()), n, pause, Planter(sort) if sort and n == 0 else None)
                for n in range(chats)]
    for c in chatters:
        c.goal = goal
    start = time.monotonic()
    accepted = lambda: sum(len(c.ledger.accepted) for c in chatters if c.ledger)  # noqa: E731

    def progress(n):
        if not quiet:
            print("  %d kills, %d turns accepted, %.0f s" % (n, accepted(), time.monotonic() - start), flush=True)

    try:
        for c in chatters:
            c.task = asyncio.create_task(c.run())
        await killer(server, rng, kills, period, progress)
        while accepted() < turns:
            await asyncio.sleep(0.1)
            for c in chatters:
                if c.task.done():
                    c.task.result()
        return await finish(chatters, 5 if sort else 90), accepted(), time.monotonic() - start
    finally:
        if os.environ.get("TROUPE_TEST_KEEP"):
            server.kill()
            print("kept", server.folder)
        else:
            server.remove()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--kills", type=int, default=200)
    p.add_argument("--turns", type=int, default=2000)
    p.add_argument("--chats", type=int, default=50)
    p.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    args = p.parse_args()
    print("seed %d" % args.seed)
    failed = 0
    found, turns, seconds = asyncio.run(round_(args.seed, args.kills, args.turns, args.chats, 0.4, 1.0))
    print("%d kills, %d chats, %d accepted turns, %.0f s: %s" % (args.kills, args.chats, turns, seconds,
                                                               ", ".join("%d %s" % (len(v), k) for k, v in found.items())))
    for sort, list_ in found.items():
        print("%s kill: %s (%d)" % ("ok" if not list_ else "not ok", sort, len(list_)))
        failed += bool(list_)
        for example in list_[:5]:
            print("   ", example)
    if turns < args.turns:
        print("not ok kill: only %d turns" % turns)
        failed = 1
    for sort in found:
        seen, _, _ = asyncio.run(round_(args.seed, 0, 12, 2, 0.05, 1.0, sort, quiet=True))
        ok = len(seen[sort]) > 0
        print("%s planted fault is found: %s (%d)" % ("ok" if ok else "not ok", sort, len(seen[sort])))
        failed += not ok
    sys.exit(1 if failed else 0)


main()
