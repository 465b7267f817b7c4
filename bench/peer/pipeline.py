"""The peer for the roles on real servers: the plain Python pipeline that one would write first (asyncio, aio-pika, one consumer
process a stage), with the same hops, confirmed publishes, conditional writes, reads and Redis calls as ours; unsealed JSON.

    pipeline.py init | preprocess | inference | notifier     one stage; says "ready"
    pipeline.py front AT_ONCE SECONDS [RATE]                 accepts turns and waits for their replies, without HTTP or WebSocket;
                                                             prints key=value figures, the first second not counted
From the environment: PEER_AMQP, PEER_CASSANDRA (host:port), PEER_REDIS, and PEER_PIDS (NAME=PID,…), whose CPU time is told.
"""
import asyncio
import json
import os
import sys
import time
import uuid

import aio_pika
import redis.asyncio
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import RoundRobinPolicy

try:
    import uvloop
    uvloop.install()
except ImportError:
    pass

STAGES = ["incoming", "inference", "notify"]  # quorum queues, as ours
TEXT = "how is the tide tonight"
PREFETCH = 64


class History:
    def __init__(self, where):
        host, port = where.rsplit(":", 1)
        profile = ExecutionProfile(load_balancing_policy=RoundRobinPolicy())
        self.session = Cluster([host], port=int(port), execution_profiles={EXEC_PROFILE_DEFAULT: profile}).connect()

    def init(self):
        self.session.execute("CREATE KEYSPACE IF NOT EXISTS peer WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        self.session.execute("CREATE TABLE IF NOT EXISTS peer.turns (chat uuid, bucket int, turn uuid, part int, rev int, created bigint,"
                             " text text, PRIMARY KEY ((chat, bucket), turn, part, rev))")

    def prepare(self):
        self.insert = self.session.prepare("INSERT INTO peer.turns (chat, bucket, turn, part, rev, created, text)"
                                           " VALUES (?, 1, ?, ?, 0, ?, ?) IF NOT EXISTS")
        self.one = self.session.prepare("SELECT part, text FROM peer.turns WHERE chat = ? AND bucket = 1 AND turn = ?")
        return self

    def run(self, statement, *values):
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()

        def settle(call, value):
            loop.call_soon_threadsafe(lambda: waiting.done() or call(value))
        self.session.execute_async(statement, values).add_callbacks(lambda rows: settle(waiting.set_result, rows),
                                                                     lambda e: settle(waiting.set_exception, e))
        return waiting


class Stage:
    async def open(self):
        self.connection = await aio_pika.connect_robust(os.environ["PEER_AMQP"])
        self.channel = await self.connection.channel(publisher_confirms=True)
        await self.channel.set_qos(prefetch_count=PREFETCH)
        self.queues = {n: await self.channel.declare_queue("peer." + n, durable=True, arguments={"x-queue-type": "quorum"}) for n in STAGES}
        self.redis = redis.asyncio.from_url(os.environ["PEER_REDIS"])
        return self

    async def publish(self, to, work, durable=True):
        mode = aio_pika.DeliveryMode.PERSISTENT if durable else aio_pika.DeliveryMode.NOT_PERSISTENT
        await self.channel.default_exchange.publish(aio_pika.Message(json.dumps(work).encode(), delivery_mode=mode), routing_key=to)

    async def serve(self, source, handle):
        async def on_message(message):
            async with message.process():  # acknowledged after what it led to was confirmed
                await handle(json.loads(message.body))
        await self.queues[source].consume(on_message)
        print("ready", flush=True)
        await asyncio.Event().wait()


async def preprocess():
    stage = await Stage().open()

    async def handle(work):
        work["text"] = " ".join(work["text"].split())
        await stage.publish("peer.inference", work)
    await stage.serve("incoming", handle)


async def inference():
    stage, history = await Stage().open(), History(os.environ["PEER_CASSANDRA"]).prepare()

    async def handle(work):
        chat, turn = uuid.UUID(work["chat"]), uuid.UUID(work["turn"])
        context = json.loads(await stage.redis.get("peer:context:" + work["chat"]) or "[]")
        await history.run(history.one, chat, turn)
        work["reply"] = "Mira heard: " + work["text"]
        await history.run(history.insert, chat, turn, 1, int(time.time() * 1000), work["reply"])
        await stage.publish("peer.notify", work)
        await stage.redis.set("peer:context:" + work["chat"], json.dumps((context + [work["text"], work["reply"]])[-20:]), px=600000)
    await stage.serve("inference", handle)


async def notifier():
    stage = await Stage().open()

    async def handle(work):
        for gateway in await stage.redis.zrangebyscore("peer:conn:" + work["chat"], time.time(), "+inf"):
            await stage.publish(gateway.decode(), work, durable=False)
    await stage.serve("notify", handle)


def uuid7():
    raw = bytearray(int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10))
    raw[6], raw[8] = 0x70 | raw[6] & 15, 0x80 | raw[8] & 63
    return uuid.UUID(bytes=bytes(raw))


def cpu_us(groups):
    tick, sums = os.sysconf("SC_CLK_TCK"), {}
    for name, pid in groups:
        with open("/proc/%s/stat" % pid) as f:
            words = f.read().rsplit(")", 1)[1].split()
        sums[name] = sums.get(name, 0) + (int(words[11]) + int(words[12])) * 1000000 // tick
    return sums


async def front(at_once, seconds, rate):
    stage, history = await Stage().open(), History(os.environ["PEER_CASSANDRA"]).prepare()
    name, waiting, took, counting = "peer.gateway." + uuid.uuid4().hex, {}, [], False
    mine = await stage.channel.declare_queue(name, exclusive=True)

    async def on_reply(message):
        work = json.loads(message.body)
        if work["turn"] in waiting:
            waiting.pop(work["turn"]).set_result(None)
    await mine.consume(on_reply, no_ack=True)

    async def chat(n):
        id_, due = uuid.uuid4(), time.monotonic() + (n / rate if rate else 0)
        await stage.redis.zadd("peer:conn:%s" % id_, {name: time.time() + 3600})
        while True:
            if rate:
                await asyncio.sleep(max(0, due - time.monotonic()))
            start, turn = due if rate else time.monotonic(), uuid7()
            due += at_once / rate if rate else 0
            replied = waiting[str(turn)] = asyncio.get_running_loop().create_future()
            await history.run(history.insert, id_, turn, 0, int(time.time() * 1000), TEXT)
            await stage.publish("peer.incoming", {"chat": str(id_), "turn": str(turn), "text": TEXT})
            await replied
            if counting:
                took.append(time.monotonic() - start)
    chats = [asyncio.create_task(chat(n)) for n in range(at_once)]
    groups = [g.split("=") for g in os.environ.get("PEER_PIDS", "").split(",") if g] + [("front", str(os.getpid()))]
    await asyncio.sleep(1)
    counting, start, before = True, time.monotonic(), cpu_us(groups)
    await asyncio.wait(chats, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for c in chats:
        if c.done():
            c.result()
    passed, after, turns = time.monotonic() - start, cpu_us(groups), len(took)
    took.sort()
    print("chats=%d turns=%d turns_per_s=%.0f p50_us=%.0f p99_us=%.0f" % (
        at_once, turns, turns / passed, took[turns // 2] * 1e6, took[turns * 99 // 100] * 1e6), end="")
    print("".join(" cpu_%s=%.0f" % (k, (after[k] - before[k]) / turns) for k in after), flush=True)
    os._exit(0)


def main():
    role, args = sys.argv[1], sys.argv[2:]
    if role == "init":
        History(os.environ["PEER_CASSANDRA"]).init()
        os._exit(0)
    if role == "front":
        asyncio.run(front(int(args[0]), float(args[1]), float(args[2]) if len(args) > 2 else 0))
    asyncio.run({"preprocess": preprocess, "inference": inference, "notifier": notifier}[role]())


main()
