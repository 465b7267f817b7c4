"""The roles as processes on the real servers: init, doctor, several gateways, dedicated workers, a worker's death.  One set of
servers for all; each test has its own cluster of ours.  (tests/fault/canary_servers.py searches the servers' folders.)"""
import asyncio
import glob
import json
import os
import re
import shutil
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from cluster import Cluster  # noqa: E402
from servers import Servers  # noqa: E402
from troupe import Client, run  # noqa: E402

servers = Servers(rabbitmq=1, redis=1, postgres=2, cassandra=1, s3=1)


def line(out, name):
    return next(l for l in out.splitlines() if l[6:].startswith(name))


def init_twice_and_doctor():
    c = Cluster(servers)
    try:
        got = c.command("doctor")
        assert got.returncode == 1 and "troupe init" in line(got.stdout, "catalogue"), got
        assert line(got.stdout, "history").startswith("FAIL") and "troupe init" in line(got.stdout, "history"), got
        assert line(got.stdout, "media").startswith("FAIL") and "troupe init" in line(got.stdout, "media"), got
        for _ in range(2):
            got = c.command("init")
            assert got.returncode == 0, got
        got = c.command("doctor")
        assert got.returncode == 0 and "All is well." in got.stdout, got
        for name, server in (("catalogue", "PostgreSQL"), ("history", "Cassandra"), ("broker", "RabbitMQ"), ("registry", "Redis"), ("media", "S3")):
            assert line(got.stdout, name).startswith("ok") and server in line(got.stdout, name), got
        assert "tr-secret" not in got.stdout + got.stderr, "a password was shown"
        # another master key: told, and nothing is made
        other = Cluster(servers)
        got = other.command("init")
        assert got.returncode == 1 and "sealed with a master key" in got.stderr, got
        got = other.command("gateway")
        assert got.returncode == 1 and "TROUPE_MASTER_KEY_FILE" in got.stderr and "troupe init" in got.stderr, got
        shutil.copytree(os.path.join(c.folder, "data"), os.path.join(HERE, "..", "..", ".deps", "real-data"), dirs_exist_ok=True)
        other.stop()
    finally:
        c.stop()


def cluster(*args, **kwargs):
    """On the stores that the first test made, with their master key."""
    c = Cluster(servers, *args, **kwargs)
    shutil.copytree(os.path.join(HERE, "..", "..", ".deps", "real-data"), os.path.join(c.folder, "data"))
    return c


def doctor_names_what_is_wrong():
    c = cluster()
    try:
        for name, key, server in (("registry", "TROUPE_REGISTRY", "redis"), ("broker", "TROUPE_BROKER", "rabbitmq"),
                                  ("catalogue", "TROUPE_CATALOGUE", "postgres"), ("history", "TROUPE_HISTORY", "cassandra"),
                                  ("media", "TROUPE_MEDIA", "s3")):
            if server in ("redis", "postgres", "s3"):  # the others take long to come back: a port where nobody listens does it
                servers.do(server, "stop")
                got = c.command("doctor")
                servers.do(server, "start")
            else:
                got = c.command("doctor", **{key: re.sub(r":\d+/", ":9/", c.env[key])})
            said = line(got.stdout, name)
            assert got.returncode == 1 and said.startswith("FAIL") and re.search("cannot reach|refused|not reached", said), said
            assert sum(l.startswith("FAIL") for l in got.stdout.splitlines()) == 1, got.stdout
            if "tr-secret" in c.env[key]:
                got = c.command("doctor", **{key: c.env[key].replace("tr-secret", "wrong-one")})
                said = line(got.stdout, name)
                assert got.returncode == 1 and said.startswith("FAIL") and "password" in said, said
                assert "wrong-one" not in got.stdout + got.stderr
        for key, value, words in (("S3_SECRET_ACCESS_KEY", "wrong-one", "set S3_SECRET_ACCESS_KEY"), ("S3_ACCESS_KEY_ID", "nobody", "set S3_ACCESS_KEY_ID"),
                                  ("TROUPE_MEDIA", "s3://troupe-nowhere", "troupe init"), ("TROUPE_MEDIA", "file:/dev/null", "another path")):
            got = c.command("doctor", **{key: value})
            assert got.returncode == 1 and line(got.stdout, "media").startswith("FAIL") and words in line(got.stdout, "media"), got
            assert "wrong-one" not in got.stdout + got.stderr
        got = c.command("doctor", TROUPE_HISTORY=c.env["TROUPE_HISTORY"].rsplit("/", 1)[0] + "/nowhere")
        assert got.returncode == 1 and "troupe init" in line(got.stdout, "history"), got
        got = c.command("doctor", TROUPE_BROKER="kafka://x/")
        assert got.returncode == 1 and "TROUPE_BROKER" in line(got.stdout, "broker") and "amqp:" in line(got.stdout, "broker"), got
        got = c.command("doctor", prefix=["faketime", "-f", "+61s"])
        late = [l for l in got.stdout.splitlines() if "clock" in l]
        assert got.returncode == 1 and late and re.search(r"clock is 6[01]\.\d s behind", late[0]), got
    finally:
        c.stop()


async def events_on_all_gateways():
    with cluster(inference=2) as c:
        one, two = c.of("gateway")
        a = await Client(Front(one)).connect()
        b = await Client(Front(two), a.token).connect()
        chat = (await a.open("mira"))["chat"]
        await b.open(chat=chat)
        turn = await a.say(chat, "to both")
        for client in (a, b):
            assert (await client.reply(turn))["text"] == "Mira heard: to both"
        # a gateway dies: the client goes on at the other one, and misses nothing
        waiting = await b.say(chat, "while it dies")
        two.stopping = True
        two.send(signal.SIGKILL)
        back = await Client(Front(one), a.token).connect()
        opened = await back.open(chat=chat, after=turn)
        if not any(v["finish"] == "stop" for t in opened["turns"] if t["turn"] == waiting for v in t["variants"]):
            assert (await back.reply(waiting))["text"] == "Mira heard: while it dies"
        await a.reply(waiting)
        for client in (a, back):
            await client.close()


class Front:
    """One gateway as the server of a Client."""

    def __init__(self, process):
        from troupe import Server
        self.server = Server.__new__(Server)
        self.url = self.server.url = "http://127.0.0.1:%d" % process.port
        self.session = self.server.session
        self.http = self.server.http


PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")


async def media_on_all_gateways():
    """Sent to one gateway, read at another, nobody else's; S3 goes away: that is told, chats go on; it comes back: so do the media."""
    with cluster(inference=1) as c:
        one, two = (Front(p) for p in c.of("gateway"))
        a = await Client(one).connect()
        head = {"Authorization": "Bearer " + a.token}
        chat = (await a.open("mira"))["chat"]

        async def http(at, method, path, body=None, **more):
            return await asyncio.get_running_loop().run_in_executor(None, at.http, method, path, body, {**head, **more})

        async def store_up(at, value):
            end = time.monotonic() + 40
            while b'troupe_store_up{store="media"} %d' % value not in (await http(at, "GET", "/metrics"))[2]:
                assert time.monotonic() < end, "media: never %d" % value
                await asyncio.sleep(0.1)

        data = PNG + os.urandom(7 << 20)  # more than a part
        status, _, body = await http(one, "POST", "/api/media", data)
        assert status == 200, (status, body)
        path = "/api/media/" + json.loads(body)["media"]
        for at in (two, one):
            status, _, body = await http(at, "GET", path)
            assert status == 200 and body == data, (status, len(body))
        status, h, body = await http(two, "GET", path, Range="bytes=5242870-5242999")
        assert status == 206 and body == data[5242870:5243000] and h["Content-Range"] == "bytes 5242870-5242999/%d" % len(data), (status, h)
        foreign = {"Authorization": "Bearer " + two.session()["token"]}
        for at in (one, two):
            assert at.http("GET", path, None, foreign)[0] == 404
        turn = await a.say(chat, "look", media=[path.rsplit("/", 1)[1]])
        assert (await a.reply(turn))["finish"] == "stop"
        await store_up(two, 1)

        servers.do("s3", "kill")
        start = time.monotonic()
        said = await asyncio.gather(http(one, "POST", "/api/media", data), http(two, "POST", "/api/media", PNG), http(two, "GET", path))
        print("   without S3: told after %.1f s" % (time.monotonic() - start))
        for status, _, body in said:
            assert status == 503 and "store of media" in json.loads(body)["error"]["message"], (status, body)
        await store_up(two, 0)
        for at in (one, two):
            assert (await http(at, "GET", "/readyz"))[0] == 200, "a gateway without media is ready"
        await a.reply(await a.say(chat, "chats go on"))
        late = c.of("gateway")[1]  # so does one that starts now
        late.ready.clear()
        late.send(signal.SIGKILL)
        assert await asyncio.get_running_loop().run_in_executor(None, late.ready.wait, 30), late.tail()

        servers.do("s3", "start")
        await store_up(two, 1)
        await store_up(one, 1)
        status, _, body = await http(one, "GET", path)
        assert status == 200 and body == data
        status, _, body = await http(two, "POST", "/api/media", data)
        assert status == 200, (status, body)
        await a.close()


async def dedicated_workers_and_the_pool():
    with cluster(inference=1, dedicated=["mira"], TROUPE_LOG_LEVEL="debug") as c:
        popular = next(p for p in c.processes if p.args)
        pool = next(p for p in c.of("inference") if not p.args)
        async with Client(c.gateways()) as a:
            mira = (await a.open("mira"))["chat"]
            juno = (await a.open("juno"))["chat"]
            await asyncio.sleep(1)
            for chat, process, other in ((mira, popular, pool), (juno, pool, popular)):
                await a.reply(await a.say(chat, "who writes this?"))
                assert chat in open(process.log_path).read() and chat not in open(other.log_path).read()
            # the dedicated one goes: the pool takes over; it comes back: so do its chats
            popular.stop()
            start = time.monotonic()
            await a.reply(await a.say(mira, "and now?"))
            print("   taken over in %.2f s" % (time.monotonic() - start))
            assert mira in open(pool.log_path).read()


async def a_dead_worker_is_drained():
    """SIGKILL of a worker with turns on its queue: the others answer them within its TTL and a generation."""
    with cluster("stub:?delay_ms=700", inference=2) as c:
        victim = c.of("inference")[0]
        clients, turns = [], []
        for _ in range(12):
            a = await Client(c.gateways()).connect()
            clients.append((a, (await a.open("mira"))["chat"]))
        for a, chat in clients:
            turns.append((a, await a.say(chat, "answer me")))
        await asyncio.sleep(0.2)
        victim.stopping = True
        victim.send(signal.SIGKILL)
        start = time.monotonic()
        for a, turn in turns:
            assert (await a.reply(turn))["finish"] == "stop"
        took = time.monotonic() - start
        print("   all answered %.2f s after the kill (TTL 2.00, a generation 0.70)" % took)
        assert took < 2 * 2.0 + 0.7 + 1.0, took
        for a, _ in clients:
            await a.close()


async def a_leaving_worker_gets_nothing_new():
    """SIGTERM of a worker that writes: it finishes, and what is sent from then on does not wait for it."""
    writes = 4.0
    with cluster("stub:?delay_ms=%d" % (writes * 1000), inference=2, TROUPE_LOAD_BOUND_PERCENT=0) as c:
        victim = c.of("inference")[0]
        a = await Client(c.gateways()).connect()
        old = [(await a.open("mira"))["chat"] for _ in range(8)]
        new = [(await a.open("mira"))["chat"] for _ in range(8)]
        before = [await a.say(chat, "written while it leaves") for chat in old]
        await asyncio.sleep(1)
        stopped = asyncio.get_running_loop().run_in_executor(None, victim.stop)
        await asyncio.sleep(0.1)
        start = time.monotonic()
        after = [await a.say(chat, "sent while it leaves") for chat in new]
        for turn in before + after:
            assert (await a.reply(turn, timeout=60))["finish"] == "stop"
        took = time.monotonic() - start
        print("   all answered %.2f s after they were sent (a generation %.2f)" % (took, writes))
        assert took < writes + 3, took
        await stopped
        await a.close()


def attempts_of(client, turn):
    """The attempts whose deltas came, in their order, each with the offset of its first."""
    seen = {}
    for e in client.events:
        if e["type"] == "delta" and e["turn"] == turn:
            seen.setdefault(e["attempt"], e["offset"])
    return seen


async def clocks_apart():
    """A worker is stopped in the middle of its replies, and another one, whose clock says earlier or later, takes over: what
    that one writes is seen."""
    for shift in ("+600s", "-600s"):
        c = cluster("stub:?gap_ms=300", inference=2, TROUPE_LOG_LEVEL="debug")
        victim = c.of("inference")[0]
        # not the faketime command: that one stays between us and the worker, and a signal would be its
        victim.prefix = ["env", "LD_PRELOAD=" + glob.glob("/usr/lib/*/faketime/libfaketime.so.1")[0], "FAKETIME=" + shift,
                         "FAKETIME_DONT_FAKE_MONOTONIC=1"]
        with c:
            clients = []
            for _ in range(8):
                a = await Client(c.gateways()).connect()
                clients.append((a, (await a.open("mira"))["chat"]))
            turns = await asyncio.gather(*(a.say(chat, " ".join("word%d" % i for i in range(30))) for a, chat in clients))
            for (a, chat), turn in zip(clients, turns):
                await a.until(lambda e: e["type"] == "delta" and e["turn"] == turn)
            victim.send(signal.SIGSTOP)
            log = open(victim.log_path).read()
            theirs = [(a, turn) for (a, chat), turn in zip(clients, turns)
                      if chat in log and sum(e["type"] == "delta" for e in a.events) < 25]
            assert theirs, "no chat of eight is at this worker, or all of its replies are done"
            for a, turn in theirs:
                assert (await a.reply(turn, timeout=30))["finish"] == "stop"
                seen = attempts_of(a, turn)
                assert len(seen) == 2 and list(seen) == sorted(seen) and set(seen.values()) == {0}, (shift, seen)
            print("   %s: %d replies of the stopped worker begun anew, and seen" % (shift, len(theirs)))
            for a, _ in clients:
                await a.close()


async def worker_in_trouble_leaves():
    with cluster("stub:?fail_word=breaks", inference=2, TROUPE_WORKER_ERRORS_MAX=3) as c:
        async with Client(c.gateways()) as a:
            chat = (await a.open("mira"))["chat"]
            turn = await a.say(chat, "this breaks")
            await a.reply(turn, timeout=60)
            await asyncio.sleep(1)
            left = [p for p in c.of("inference") if "worker.trouble" in open(p.log_path).read()]
            assert left and all(p.starts > 1 for p in left), "nobody left, or was not started again"
            assert (await a.reply(await a.say(chat, "and this does not")))["finish"] == "stop"


def told(client, turn, *kinds):
    name = lambda t: t["turn"] if isinstance(t, dict) else t  # noqa: E731
    return [e for e in client.events if e["type"] in kinds and name(e.get("turn")) == turn]


async def two_devices(c, n):
    """A chat with n answered turns, open on both gateways."""
    one, two = c.of("gateway")
    a = await Client(Front(one)).connect()
    chat = (await a.open("mira"))["chat"]
    b = await Client(Front(two), a.token).connect()
    await b.open(chat=chat)
    turns = []
    for i in range(n):
        turns.append(await a.say(chat, "number %d" % i))
        await a.reply(turns[-1], timeout=40)
        await b.reply(turns[-1], timeout=40)
    return a, b, chat, turns


async def changes_in_a_gap():
    """A gateway stands still until its queue is gone; meanwhile another device edits, regenerates and deletes: the device there is told."""
    with cluster(inference=1, preprocess=1, notifier=1) as c:
        a, b, chat, turns = await two_devices(c, 3)
        still = c.of("gateway")[1]
        before = len(b.events)
        still.send(signal.SIGSTOP)
        await asyncio.sleep(6)  # past the broker's heartbeat and the gateway's own record
        await a.ask("edit", turn=turns[0], text="another one")
        variant = (await a.ask("regenerate", turn=turns[1]))["variant"]
        await a.reply(turns[1], variant, timeout=40)
        await a.ask("delete", turn=turns[2])
        still.send(signal.SIGCONT)
        start = time.monotonic()
        await b.until(lambda _: told(b, turns[0], "changed") and told(b, turns[1], "changed") and told(b, turns[2], "deleted"), 60)
        print("   told %.1f s after it went on" % (time.monotonic() - start))
        assert [e["variant"] for e in told(b, turns[1], "reply")] == [0, variant], told(b, turns[1], "reply")
        assert told(b, turns[0], "changed")[-1]["turn"]["text"] == "another one"
        assert len(told(b, turns[2], "deleted")) == 1 and not [e for e in b.events[before:] if e["type"] == "error"]
        for client in (a, b):
            await client.close()


async def a_history_that_one_cannot_read():
    """A gateway is cut off from Cassandra for longer than it tries again, while a message is sent at the other one: nothing is taken for gone."""
    with cluster(inference=1, preprocess=1, notifier=1, linked=True) as c:
        a, b, chat, turns = await two_devices(c, 1)
        cut_off = c.of("gateway")[1]
        for link in cut_off.links["cassandra"]:
            c.proxies.tell("cut", link)
        turn = await a.say(chat, "while it cannot read")
        await a.reply(turn, timeout=40)
        await asyncio.sleep(14)
        assert not told(b, turn, "turn", "reply")
        for link in cut_off.links["cassandra"]:
            c.proxies.tell("mend", link)
        start = time.monotonic()
        assert (await b.reply(turn, timeout=60))["text"] == "Mira heard: while it cannot read"
        print("   told %.1f s after the cut was mended" % (time.monotonic() - start))
        assert len(told(b, turn, "turn")) == 1
        for client in (a, b):
            await client.close()


async def an_old_primary_is_refused():
    """The replica is promoted beside the primary, which goes on: the roles and doctor say so, and use the promoted one."""
    with cluster(inference=1) as c:
        async with Client(c.gateways()) as a:
            await a.reply(await a.say((await a.open("mira"))["chat"], "before"))
            servers.do("postgres", "promote", 2)
            end = time.monotonic() + 20
            while not all("store.warning" in open(p.log_path).read() for p in c.of("gateway")):
                assert time.monotonic() < end, "the gateways' logs tell of no second primary"
                await asyncio.sleep(0.1)
            got = c.command("doctor")
            said = line(got.stdout, "catalogue")
            assert got.returncode == 1 and said.startswith("FAIL") and "an old primary that came back (timeline 1, newest 2)" in said, got
            users = [int(servers.ask("postgres", "sql", n, "troupe", "SELECT count(*) FROM users")) for n in (1, 2)]
            async with Client(c.gateways()) as b:
                await b.reply(await b.say((await b.open("mira"))["chat"], "after"))
            after = [int(servers.ask("postgres", "sql", n, "troupe", "SELECT count(*) FROM users")) for n in (1, 2)]
            assert after[0] == users[0] and after[1] > users[1], "the new user was put at %s" % (after,)
            servers.do("postgres", "kill", 1)
            got = c.command("doctor")
            assert got.returncode == 0, got


with servers:
    try:
        run([init_twice_and_doctor, doctor_names_what_is_wrong, events_on_all_gateways, media_on_all_gateways, dedicated_workers_and_the_pool,
             a_dead_worker_is_drained, clocks_apart, a_leaving_worker_gets_nothing_new, worker_in_trouble_leaves, changes_in_a_gap,
             a_history_that_one_cannot_read,
             an_old_primary_is_refused])  # the last: PostgreSQL is another one after it
    finally:
        shutil.rmtree(os.path.join(HERE, "..", "..", ".deps", "real-data"), ignore_errors=True)
