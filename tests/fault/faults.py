"""faults.py: what is done to the processes, the servers and the links between them while chats go on (cluster_run.py)."""
import asyncio
import os
import re
import shutil
import signal
import subprocess
import time

import bare

TTL = 2.0
YOUNG = 13        # a RabbitMQ queue younger than that may not outlive a kill -9 of a single node: see connect.c
BEYOND = 12       # seconds: by then the broker has given up a gateway that stands still, and its queue has gone
SERVERS = ("rabbitmq", "redis", "postgres", "cassandra", "s3")


class Faults:
    """Each fault returns, once its cause is over, (what it was, when the server answered again or None: it never stopped)."""

    def __init__(self, cluster, servers, rng, returned, three=None, only=""):
        """returned(): is called when a server answers again."""
        self.cluster, self.servers, self.rng, self.returned, self.three, self.only = cluster, servers, rng, returned, three, only
        self.started = time.monotonic()
        self.away = None  # a node that is not started yet
        self.launched = None  # when a server was last started again

    async def thread(self, fn, *args):
        return await asyncio.get_running_loop().run_in_executor(None, fn, *args)

    # ---- our processes

    async def signal_one(self, sig):
        p = self.rng.choice(self.cluster.processes)
        p.send(sig)
        return p.name, None

    async def stand_still(self, p, seconds):
        p.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        p.send(signal.SIGCONT)
        return "%s for %.1f s" % (p.name, seconds), None

    async def pause_one(self):
        return await self.stand_still(self.rng.choice(self.cluster.processes), self.rng.uniform(0.3, 2 * TTL))

    async def pause_gateway(self):
        return await self.stand_still(self.rng.choice(self.cluster.of("gateway")), BEYOND + self.rng.uniform(0, 3))

    async def rolling(self):
        """Every process ends by SIGTERM and is started again, one after the other, as at an upgrade."""
        for p in self.cluster.processes:
            p.ready.clear()
            p.send(signal.SIGTERM)
            await self.thread(p.ready.wait, 60)
        return "%d processes" % len(self.cluster.processes), None

    # ---- the servers

    async def back(self, name, verb, *args):
        """What the verb starts or mends; returns when a bare client of every node of the server was answered."""
        self.launched = time.monotonic()
        doing = asyncio.ensure_future(self.thread(self.servers.do, name, verb, *args))
        end = self.launched + 120
        while not await self.thread(bare.answers, self.servers, name):
            if (doing.done() and doing.exception()) or time.monotonic() > end:
                break
            await asyncio.sleep(0.05)
        at = time.monotonic()
        self.returned()
        await doing
        return at

    async def restart(self, name):
        verb = self.rng.choice(("kill", "stop"))
        if name == "rabbitmq" and verb == "kill":
            await asyncio.sleep(max(0, self.started + YOUNG - time.monotonic()))
        await self.thread(self.servers.do, name, verb)
        await asyncio.sleep(self.rng.uniform(0, 1))
        return "%s %s" % (name, verb), await self.back(name, "start")

    async def redis(self, *args):
        return await self.thread(self.servers.ask, "redis", "cli", *args)

    async def flush(self):
        await self.redis("FLUSHALL")
        return "redis", None

    async def snapshot(self):
        """Redis dies, and comes back as it was some seconds before."""
        folder = self.servers.dir("redis")
        dump, aside = os.path.join(folder, "dump.rdb"), os.path.join(folder, "aside.rdb")
        await self.redis("SAVE")
        shutil.copy(dump, aside)
        age = self.rng.uniform(1, 4 * TTL)
        await asyncio.sleep(age)
        await self.thread(self.servers.do, "redis", "kill")
        os.replace(aside, dump)
        try:
            return "as it was %.1f s before" % age, await self.back("redis", "start")
        finally:
            os.remove(dump)  # the next start is with nothing again

    async def full(self):
        """Redis takes no more: it is at its limit, and evicts nothing."""
        used = int(re.search(r"used_memory:(\d+)", await self.redis("INFO", "memory")).group(1))
        seconds = self.rng.uniform(1, 4 * TTL)
        await self.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await self.redis("CONFIG", "SET", "maxmemory", str(max(1, used - 100000)))
        await asyncio.sleep(seconds)
        await self.redis("CONFIG", "SET", "maxmemory", "0")
        return "for %.1f s" % seconds, None

    async def cut(self, server):
        """One process is cut off from one server."""
        p = self.rng.choice([p for p in self.cluster.processes if server != "s3" or p.role == "gateway"])
        how, seconds = self.rng.choice(("cut", "swallow")), self.rng.uniform(0.3, 4 * TTL)
        for link in p.links[server]:
            await self.thread(self.cluster.proxies.tell, how, link)
        await asyncio.sleep(seconds)
        for link in p.links[server]:
            await self.thread(self.cluster.proxies.tell, "mend", link)
        return "%s, %s for %.1f s" % (p.name, how, seconds), None

    # ---- three nodes

    async def leader(self):
        """The RabbitMQ node that leads one of the queues, drawn by lot."""
        # as the broker's table has it: list_queues asks every queue and may hang on one
        told = await self.thread(self.servers.ask, "rabbitmq", "ctl", 1, "eval",
                                 "[{element(4, amqqueue:get_name(Q)), element(2, amqqueue:get_pid(Q))} || Q <- rabbit_amqqueue:list(), is_tuple(amqqueue:get_pid(Q))].")
        name, node = self.rng.choice(re.findall(r'<<"(troupe[^"]+)">>,\s*\'?troupe(\d)-', told))
        return name, int(node)

    async def draw_node(self):
        if self.three == "rabbitmq" and self.rng.random() < 0.6:
            queue, n = await self.leader()
            return n, "rabbitmq %d, the leader of %s" % (n, queue)
        n = self.rng.randint(1, 3)
        return n, "%s %d" % (self.three, n)

    async def node(self):
        """SIGKILL of one node; it stays away until heal()."""
        n, self.away = await self.draw_node()
        await self.thread(self.servers.do, self.three, "kill", n)
        return self.away, None

    async def without_node(self, verb, undo):
        n, what = await self.draw_node()
        seconds = self.rng.uniform(1, 12)
        await self.thread(self.servers.do, self.three, verb, n)
        await asyncio.sleep(seconds)
        return "%s for %.1f s" % (what, seconds), await self.back(self.three, undo, n)

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

    # ---- which, and how often

    def sorts(self):
        if self.three:
            cut = ("one of three cut off from the others", lambda: self.without_node("cut", "mend"))
            return [("SIGKILL of one of three", self.node), ("one of three stands still", lambda: self.without_node("pause", "resume"))] + \
                   [cut] * bool(os.environ.get("TROUPE_TEST_OWN_NET"))
        return [("SIGKILL of a role", lambda: self.signal_one(signal.SIGKILL))] * 6 + [("SIGSTOP of a role", self.pause_one)] * 5 + \
               [("SIGTERM of a role", lambda: self.signal_one(signal.SIGTERM))] * 2 + [("FLUSHALL", self.flush)] * 2 + \
               [("restart of " + s, lambda s=s: self.restart(s)) for s in SERVERS] + [("cut from " + s, lambda s=s: self.cut(s)) for s in SERVERS] + \
               [("Redis as it was before", self.snapshot)] * 2 + [("Redis full", self.full)] * 2 + \
               [("a gateway beyond its TTL", self.pause_gateway), ("rolling restart", self.rolling)]

    def plan(self, n):
        """n faults, each sort about as often as it should be."""
        sorts = [s for s in self.sorts() if re.search(self.only, s[0])]
        plan = sorts * (n // len(sorts)) + self.rng.sample(sorts, n % len(sorts))
        self.rng.shuffle(plan)
        return plan
