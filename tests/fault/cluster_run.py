"""cluster_run.py [--faults N] [--turns N] [--chats N] [--seed N] [--three cassandra|rabbitmq] [--only PATTERN] [--explain S] [--quick]

The roles as processes on the real servers (3 inference workers, 2 gateways, 2 preprocess, 2 notifiers; the stub engine), each process
with a proxy of its own before each server, and one fault after the other (faults.py) while chats go on: on every second chat two
devices, which edit, choose, regenerate and delete turns.  Counted by ledger.py, as in kill.py: accepted turns without a reply, doubled,
out of order, torn; changes that another device was never told of; a history or a device that ends with something else.

For each fault: how long until every turn accepted before it was over is answered: since the fault's cause was over (the process was
killed, the server was started, the link was mended), and beyond the server's own return, which a bare client of it tells.
--three: three nodes of that server, and the faults are kills of one of them (of RabbitMQ: also of the leader), and its standing still; run
by tests/servers/own_net.sh also that it is cut off from the other two, not from our processes.
Then the same checker must find a planted fault of each sort.
"""
import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import timeline  # noqa: E402
from chatter import Chatter, finish  # noqa: E402
from cluster import Cluster  # noqa: E402
from faults import TTL, YOUNG, Faults  # noqa: E402
from ledger import count  # noqa: E402
from planted import planted_in_the_cluster, planted_on_the_way  # noqa: E402
from servers import Servers  # noqa: E402

DELAY, GAP, WORDS = 0.015, 0.004, 8  # of the stub engine: one generation is about DELAY + WORDS * GAP
SLOW = 60.0                          # seconds: then it has not recovered


def unanswered(chatters):
    return {(c.n, *key) for c in chatters for key in c.unanswered}


async def recovery(chatters):
    """(when every reply was there that is waited for now, the last one); (None, one that waits): it took too long."""
    waiting, start, last = unanswered(chatters), time.monotonic(), None
    while waiting:
        last = min(waiting)
        if time.monotonic() - start > SLOW:
            return None, last
        await asyncio.sleep(0.02)
        waiting &= unanswered(chatters)
    return time.monotonic(), last


class Times:
    """What each fault took, by its sort."""

    def __init__(self):
        self.took, self.beyond, self.slow = {}, {}, []

    def note(self, name, what, over, returned, at):
        if at is None:
            self.slow.append((name, what))
        took = at - over if at is not None else SLOW
        beyond = max(0.0, min(took, at - returned)) if at is not None and returned is not None else took
        self.took.setdefault(name, []).append(took)
        self.beyond.setdefault(name, []).append(beyond)
        return took, beyond

    def tell(self):
        def line(name, took, beyond):
            print("  %-26s n=%-4d p50 %5.2f  p99 %5.2f   beyond the server's return: p50 %5.2f  p99 %5.2f" % (
                name, len(took), percentile(took, 0.5), percentile(took, 0.99), percentile(beyond, 0.5), percentile(beyond, 0.99)))

        print("recovery, seconds (TTL + one generation: %.2f):" % (TTL + DELAY + WORDS * GAP))
        for name in sorted(self.took):
            line(name, self.took[name], self.beyond[name])
        if self.took:
            line("all", sum(self.took.values(), []), sum(self.beyond.values(), []))


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p))]


def look(chatters):
    """Raises what ended a chat before its time."""
    for c in chatters:
        if c.task.done():
            c.task.result()


async def run(args, servers, cluster, rng):
    chatters = [Chatter(cluster.gateways(random.Random(rng.random())), random.Random(rng.random()), n, args.pause,
                        devices=1 + n % 2, rate=args.rate) for n in range(args.chats)]
    goal = asyncio.Event()
    for c in chatters:
        c.goal = goal
        c.task = asyncio.create_task(c.run())
    accepted = lambda: sum(len(c.ledger.accepted) for c in chatters if c.ledger)  # noqa: E731
    start, times = time.monotonic(), Times()
    recovering = []
    hand = Faults(cluster, servers, rng, lambda: recovering.append(asyncio.create_task(recovery(chatters))), args.three, args.only)
    while accepted() < args.chats:
        await asyncio.sleep(0.1)
        look(chatters)
    for n, (name, fault) in enumerate(hand.plan(args.faults)):
        await asyncio.sleep(rng.uniform(0.2, args.period))
        if args.three and n == 0:
            await asyncio.sleep(max(0, hand.started + YOUNG - time.monotonic()))
        struck = time.time()
        what, returned = await fault()
        over = time.monotonic() if returned is None else hand.launched
        at, last = await (recovering.pop() if recovering else recovery(chatters))
        took, beyond = times.note(name, what, over, returned, at)
        if hand.away:  # more turns while it is away, before it comes back
            await asyncio.sleep(rng.uniform(1, 4))
            await hand.heal()
            await asyncio.sleep(3)  # a quorum needs the other two: they must have met again before the next is killed
        if (n + 1) % 5 == 0 or beyond > TTL + 1 or args.three or args.explain is not None:
            print("  %d faults, %d turns accepted, %.0f s; last: %s (%s), recovered in %.2f s, %.2f s beyond"
                  % (n + 1, accepted(), time.monotonic() - start, name, what, took, beyond), flush=True)
        if args.explain is not None and beyond > args.explain and last:
            print("    turn %s, variant %d; struck at 0, over after %.3f s" % (last[1], last[2], time.time() - time.monotonic() + over - struck))
            timeline.tell(cluster.folder, last[1], struck - 0.5, time.time(), zero=struck)
        look(chatters)
    while accepted() < args.turns:
        await asyncio.sleep(0.1)
        look(chatters)
    found = await finish(chatters, 120)
    return found, accepted(), time.monotonic() - start, times, chatters


def tell(args, label, found, turns, seconds, times, chatters):
    """Prints what was counted; how many promises were broken."""
    failed = 0
    done, events = count([c.ledger for c in chatters])
    print("%d faults, %d chats, %d accepted turns, %.0f s: %s" % (
        args.faults, args.chats, turns, seconds, ", ".join("%d %s" % (len(v), k) for k, v in found.items())))
    print("changes that were done: %s; events that came: %s" % (
        ", ".join("%d %s" % (n, kind) for kind, n in sorted(done.items())), ", ".join("%d %s" % (n, kind) for kind, n in sorted(events.items()))))
    times.tell()
    refused = Counter(code for c in chatters for code in c.refused)
    print("refused before they were accepted, and sent again: %s" % (dict(refused) or "none"))
    for sort, list_ in found.items():
        print("%s %s: %s (%d)" % ("ok" if not list_ else "not ok", label, sort, len(list_)))
        failed += bool(list_)
        for example in list_[:5]:
            print("   ", example)
    print("%s %s: recovered from every fault%s" % ("not ok" if times.slow else "ok", label, ": not from %s" % times.slow if times.slow else ""))
    failed += bool(times.slow)
    if turns < args.turns:
        print("not ok %s: only %d turns" % (label, turns))
        failed += 1
    return failed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--faults", type=int, default=100)
    p.add_argument("--turns", type=int, default=5000)
    p.add_argument("--chats", type=int, default=200)
    p.add_argument("--pause", type=float, default=3.0, help="seconds at most between a chat's messages")
    p.add_argument("--period", type=float, default=2.0, help="seconds at most between faults")
    p.add_argument("--rate", type=float, default=0.3, help="how likely a device changes a turn between two pauses")
    p.add_argument("--three", choices=("cassandra", "rabbitmq"))
    p.add_argument("--only", default="", help="faults whose name matches this, as in 'restart of redis|FLUSHALL'; nothing is planted")
    p.add_argument("--explain", type=float, help="print the timeline of the slowest turn of each fault that took longer, seconds")
    p.add_argument("--quick", action="store_true", help="what `make test` does: few faults, few chats")
    p.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    args = p.parse_args()
    if args.quick:
        args.faults, args.turns, args.chats = (4, 600, 40) if args.three else (20, 1500, 60)
    print("seed %d" % args.seed)
    rng = random.Random(args.seed)
    label = "three nodes of " + args.three if args.three else "cluster"
    nodes = {"rabbitmq": 1, "redis": 1, "postgres": 2, "cassandra": 1, "s3": 1}
    if args.three:
        nodes[args.three] = 3
    engine = "stub:?delay_ms=%d&gap_ms=%d" % (DELAY * 1000, GAP * 1000)
    more = {"TROUPE_LOG_LEVEL": "debug"} if args.explain is not None else {}
    with Servers(**nodes) as servers, Cluster(servers, engine, linked=not args.three, **more) as cluster:
        failed = tell(args, label, *asyncio.run(run(args, servers, cluster, rng)))
        if not args.three and not args.only:
            for planted in (lambda: planted_on_the_way(cluster.gateways, rng), lambda: planted_in_the_cluster(servers, cluster, rng)):
                for what, ok in asyncio.run(planted()):
                    print("%s %s" % ("ok" if ok else "not ok", what), flush=True)
                    failed += not ok
    sys.exit(1 if failed else 0)


main()
