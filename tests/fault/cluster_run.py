"""cluster_run.py [--faults N] [--turns N] [--chats N] [--seed N] [--three cassandra|rabbitmq] [--quick]

The roles as processes on the real servers (3 inference workers, 2 gateways, 2 preprocess, 2 notifiers; the stub engine),
and one fault after the other while chats go on: SIGKILL and SIGSTOP of a process of ours, a restart (SIGKILL or SIGTERM)
of RabbitMQ, Redis, PostgreSQL, Cassandra or S3, and FLUSHALL.  Counted by ledger.py, as in kill.py: accepted turns without a
reply, doubled, out of order, torn.  For each fault: how long until every turn accepted before it was over is answered.

--three: three nodes of that server, and the faults are kills of one of them (of RabbitMQ: also of the leader).
Then the same checker must find a planted fault of each sort.
"""
import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chatter import Chatter, Planter, check, finish  # noqa: E402
from cluster import Cluster  # noqa: E402
from cql import Cql  # noqa: E402
from servers import Servers  # noqa: E402

TTL = 2.0
DELAY, GAP, WORDS = 0.015, 0.004, 8  # of the stub engine: one generation is about DELAY + WORDS * GAP
YOUNG = 13  # a RabbitMQ queue younger than that may not outlive a kill -9 of a single node: see connect.c


class Faults:
    def __init__(self, cluster, servers, rng, three=None, only=""):
        self.cluster, self.servers, self.rng, self.three, self.only = cluster, servers, rng, three, only
        self.started = time.monotonic()
        self.away = None  # a node that is not started yet

    async def thread(self, fn, *args):
        return await asyncio.get_running_loop().run_in_executor(None, fn, *args)

    async def kill_one(self):
        p = self.rng.choice(self.cluster.processes)
        p.send(signal.SIGKILL)
        return p.name

    async def pause_one(self):
        p = self.rng.choice(self.cluster.processes)
        p.send(signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(0.3, 2 * TTL))
        p.send(signal.SIGCONT)
        return p.name

    async def end_one(self):
        p = self.rng.choice(self.cluster.processes)
        p.send(signal.SIGTERM)
        return p.name

    async def restart(self, name):
        verb = self.rng.choice(("kill", "stop"))
        if name == "rabbitmq" and verb == "kill":
            await asyncio.sleep(max(0, self.started + YOUNG - time.monotonic()))
        await self.thread(self.servers.do, name, verb)
        await asyncio.sleep(self.rng.uniform(0, 1))
        await self.thread(self.servers.do, name, "start")
        return "%s %s" % (name, verb)

    async def flush(self):
        await self.thread(self.servers.ask, "redis", "cli", "FLUSHALL")
        return "redis"

    async def leader(self):
        """The RabbitMQ node that leads one of the queues, drawn by lot."""
        # as the broker's table has it: list_queues asks every queue and may hang on one
        told = await self.thread(self.servers.ask, "rabbitmq", "ctl", 1, "eval",
                                 "[{element(4, amqqueue:get_name(Q)), element(2, amqqueue:get_pid(Q))} || Q <- rabbit_amqqueue:list(), is_tuple(amqqueue:get_pid(Q))].")
        name, node = self.rng.choice(re.findall(r'<<"([^"]+)">>,\s*\'?troupe(\d)-', told))
        return name, int(node)

    async def node(self):
        """SIGKILL of one node; it stays away until heal()."""
        n, leads = self.rng.randint(1, 3), ""
        if self.three == "rabbitmq" and self.rng.random() < 0.6:
            queue, n = await self.leader()
            leads = ", the leader of " + queue
        await self.thread(self.servers.do, self.three, "kill", n)
        self.away = "%s %d%s" % (self.three, n, leads)
        return self.away

    async def heal(self):
        if self.away is not None:
            for left in (1, 0):  # on a busy machine a node may take longer than its script waits
                try:
                    await self.thread(self.servers.do, self.three, "start")
                    break
                except subprocess.SubprocessError:
                    if not left:
                        raise
            self.away = None

    def plan(self, n):
        """n faults, each sort about as often as it should be."""
        if self.three:
            return [("SIGKILL of one of three", self.node)] * n
        sorts = [("SIGKILL of a role", self.kill_one)] * 6 + [("SIGSTOP of a role", self.pause_one)] * 5 + \
                [("SIGTERM of a role", self.end_one)] * 2 + [("FLUSHALL", self.flush)] * 2 + \
                [("restart of " + s, lambda s=s: self.restart(s)) for s in ("rabbitmq", "redis", "postgres", "cassandra", "s3")]
        sorts = [s for s in sorts if self.only in s[0]]
        plan = sorts * (n // len(sorts)) + self.rng.sample(sorts, n % len(sorts))
        self.rng.shuffle(plan)
        return plan


def unanswered(chatters):
    return {(c.n, t) for c in chatters for t in c.unanswered}


async def recovery(chatters, limit=60):
    """Seconds until every turn that waits now is answered; None: it took too long."""
    waiting, start = unanswered(chatters), time.monotonic()
    while waiting:
        if time.monotonic() - start > limit:
            return None
        await asyncio.sleep(0.02)
        waiting &= unanswered(chatters)
    return time.monotonic() - start


async def run(args, servers, cluster, rng, sort=None):
    quiet = sort is not None
    chats, faults, turns = (2, 0, 12) if quiet else (args.chats, args.faults, args.turns)
    chatters = [Chatter(cluster.gateways(random.Random(rng.random())), random.Random(rng.random()), n, 0.05 if quiet else args.pause,
                        Planter(sort) if quiet and n == 0 else None) for n in range(chats)]
    goal = asyncio.Event()
    for c in chatters:
        c.goal = goal
        c.task = asyncio.create_task(c.run())
    accepted = lambda: sum(len(c.ledger.accepted) for c in chatters if c.ledger)  # noqa: E731
    start, times, slow = time.monotonic(), {}, []
    hand = Faults(cluster, servers, rng, args.three, args.only)
    while not quiet and accepted() < chats:
        await asyncio.sleep(0.1)
    for n, (name, fault) in enumerate(hand.plan(faults)):
        await asyncio.sleep(rng.uniform(0.2, args.period))
        if args.three and n == 0:
            await asyncio.sleep(max(0, hand.started + YOUNG - time.monotonic()))
        what = await fault()
        took = await recovery(chatters)
        if took is None:
            slow.append((name, what))
            took = 60.0
        times.setdefault(name, []).append(took)
        if hand.away:  # more turns while it is away, before it comes back
            await asyncio.sleep(rng.uniform(1, 4))
            await hand.heal()
            await asyncio.sleep(3)  # a quorum needs the other two: they must have met again before the next is killed
        if (n + 1) % 5 == 0 or took > 3 or args.three:
            print("  %d faults, %d turns accepted, %.0f s; last: %s (%s), recovered in %.2f s"
                  % (n + 1, accepted(), time.monotonic() - start, name, what, took), flush=True)
        for c in chatters:
            if c.task.done():
                c.task.result()
    while accepted() < turns:
        await asyncio.sleep(0.1)
    found = await finish(chatters, 5 if quiet else 120)
    return found, accepted(), time.monotonic() - start, times, slow, chatters


async def planted_in_the_cluster(servers, cluster, rng):
    """Faults that no client makes up: [(what, found)]."""
    chatters = [Chatter(cluster.gateways(), random.Random(rng.random()), n, 0.05) for n in range(2)]
    goal = asyncio.Event()
    for c in chatters:
        c.goal = goal
        c.task = asyncio.create_task(c.run())
    while sum(len(c.ledger.accepted) for c in chatters if c.ledger) < 12:
        await asyncio.sleep(0.1)
    workers = cluster.of("inference")
    for p in workers:
        p.send(signal.SIGSTOP)
    while not unanswered(chatters):
        await asyncio.sleep(0.02)
    asyncio.get_running_loop().call_later(3, lambda: [p.send(signal.SIGCONT) for p in workers])
    took = await recovery(chatters)
    clean = sum(map(len, (await finish(chatters, 30)).values())) == 0
    results = [("all workers stand still for 3 s, which the recovery time shows, and nothing else is broken", clean and took is not None and took > 2.5)]
    c = chatters[0]
    turn = rng.choice(list(c.ledger.accepted.values()))
    cql = Cql(servers.stores()["TROUPE_HISTORY"])
    month = time.strftime("%Y%m", time.gmtime(int(turn.replace("-", "")[:12], 16) / 1000))
    cql.run("DELETE FROM %s.turns WHERE chat = %s AND bucket = %s AND turn = %s AND part = 1" % (cql.keyspace, c.ledger.chat, month, turn))
    await c.list_all()
    results.append(("a reply erased in Cassandra is lost", len(check([c.ledger])["lost"]) > 0))
    return results


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p))]


def tell_times(times):
    everything = [t for list_ in times.values() for t in list_]
    bound = TTL + DELAY + WORDS * GAP
    print("recovery, seconds (TTL + one generation: %.2f):" % bound)
    for name, list_ in sorted(times.items()):
        print("  %-22s n=%-3d p50 %.2f  p99 %.2f" % (name, len(list_), percentile(list_, 0.5), percentile(list_, 0.99)))
    if everything:
        print("  %-22s n=%-3d p50 %.2f  p99 %.2f" % ("all", len(everything), percentile(everything, 0.5), percentile(everything, 0.99)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--faults", type=int, default=100)
    p.add_argument("--turns", type=int, default=5000)
    p.add_argument("--chats", type=int, default=200)
    p.add_argument("--pause", type=float, default=3.0, help="seconds at most between a chat's messages")
    p.add_argument("--period", type=float, default=2.0, help="seconds at most between faults")
    p.add_argument("--three", choices=("cassandra", "rabbitmq"))
    p.add_argument("--only", default="", help="faults whose name holds this, as in 'restart of redis'")
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
    failed = 0
    engine = "stub:?delay_ms=%d&gap_ms=%d" % (DELAY * 1000, GAP * 1000)
    with Servers(**nodes) as servers, Cluster(servers, engine) as cluster:
        found, turns, seconds, times, slow, chatters = asyncio.run(run(args, servers, cluster, rng))
        print("%d faults, %d chats, %d accepted turns, %.0f s: %s" % (
            args.faults, args.chats, turns, seconds, ", ".join("%d %s" % (len(v), k) for k, v in found.items())))
        tell_times(times)
        refused = Counter(code for c in chatters for code in c.refused)
        print("refused before they were accepted, and sent again: %s" % (dict(refused) or "none"))
        for sort, list_ in found.items():
            print("%s %s: %s (%d)" % ("ok" if not list_ else "not ok", label, sort, len(list_)))
            failed += bool(list_)
            for example in list_[:5]:
                print("   ", example)
        print("%s %s: recovered from every fault%s" % ("not ok" if slow else "ok", label, ": not from %s" % slow if slow else ""))
        failed += bool(slow)
        if turns < args.turns:
            print("not ok %s: only %d turns" % (label, turns))
            failed = 1
        if not args.three:
            for sort in found:
                seen = asyncio.run(run(args, servers, cluster, rng, sort))[0]
                ok = len(seen[sort]) > 0
                print("%s planted fault is found: %s (%d)" % ("ok" if ok else "not ok", sort, len(seen[sort])))
                failed += not ok
            for what, ok in asyncio.run(planted_in_the_cluster(servers, cluster, rng)):
                print("%s planted in the cluster: %s" % ("ok" if ok else "not ok", what))
                failed += not ok
    sys.exit(1 if failed else 0)


main()
