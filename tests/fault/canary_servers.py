"""The canary search (see tests/flow/test_canary.py) over the data folders of all servers and the logs of all roles: RabbitMQ's logs and
mnesia, Redis's dump (uncompressed), PostgreSQL's data and WAL, Cassandra's commit log and tables, S3's folder; while words lie in
the queues, after the servers wrote out what they hold, and after an orderly end.  As Cassandra and PostgreSQL compress, all their tables are
also read over their protocols.  A word that is planted through each server is found in its folder.
"""
import asyncio
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from canary import WORD, search, search_bytes  # noqa: E402
from cluster import Cluster  # noqa: E402
from cql import Cql  # noqa: E402
from servers import Servers  # noqa: E402
from troupe import Client, run  # noqa: E402

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000000000200015ba0b0d00000000049454e44ae426082")


def tables_of_cassandra(cql):
    raw = cql.run("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '%s'" % cql.keyspace)
    names = ("turns", "chats", "clients", "chats_by_user", "chats_by_character", "selected", "keys", "schema_version")
    found = [n for n in names if n.encode() in raw]
    assert "turns" in found, raw
    return b"".join(cql.run("SELECT * FROM %s.%s" % (cql.keyspace, n)) for n in found)


def tables_of_postgres(servers):
    names = servers.ask("postgres", "sql", 1, "troupe", "SELECT tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
    return "".join(servers.ask("postgres", "sql", 1, "troupe", 'SELECT * FROM "%s"' % n) for n in names.split()).encode()


def look(servers, cluster, when, cassandra_up=True):
    """Nothing is found anywhere."""
    servers.ask("redis", "cli", "CONFIG", "SET", "rdbcompression", "no")
    servers.ask("redis", "cli", "SAVE")
    servers.ask("postgres", "sql", 1, "troupe", "CHECKPOINT")
    found = search(servers.folder) + search(cluster.folder)
    assert not found, (when, found)
    found = search_bytes(tables_of_postgres(servers))
    assert not found, (when, "PostgreSQL's tables", found)
    if cassandra_up:
        tables = tables_of_cassandra(Cql(servers.env["TROUPE_TEST_CASSANDRA"]))
        assert len(tables) > 1000, len(tables)
        found = search_bytes(tables)
        assert not found, (when, "Cassandra's tables", found)
    for name in servers.nodes:
        n = sum(len(files) for _, _, files in os.walk(servers.dir(name)))
        size = sum(os.path.getsize(os.path.join(top, f)) for top, _, files in os.walk(servers.dir(name)) for f in files if os.path.exists(os.path.join(top, f)))
        print("   %s: searched %d files, %d KiB of %s" % (when, n, size // 1024, name))


def restart(cluster):
    for p in cluster.processes:
        p.stopping = False
        p.start()
    for p in cluster.processes:
        assert p.ready.wait(60), p.tail()


def upload(server, token, servers):
    """Pictures with the word in them, in one request and in several parts; they lie in S3's folder under their names."""
    headers = {"Authorization": "Bearer " + token, "Content-Type": "image/png"}
    media = []
    for times in (50, 300000):
        status, _, body = server.http("POST", "/api/media", PNG + WORD.encode() * times, headers)
        assert status == 200, (status, body)
        media.append(json.loads(body)["media"])
    found = {name: os.path.getsize(os.path.join(top, name)) for top, _, files in os.walk(servers.dir("s3")) for name in files if name in media}
    assert set(found) == set(media) and max(found.values()) > 7000000, (media, found)
    return media


async def talk(cluster, servers):
    server = cluster.gateways()
    c = await Client(server).connect()
    media = upload(server, c.token, servers)
    chat = (await c.open("mira", id="open " + WORD))["chat"]
    turn = await c.say(chat, "I am %s, mail %s@example.org" % (WORD, WORD), id="id " + WORD, media=media)
    await c.reply(turn)
    await c.ask("regenerate", turn=turn)
    await c.reply(turn, 1)
    await c.ask("edit", turn=turn, text="edited %s" % WORD)
    failing = await c.say(chat, "%s-fails" % WORD)
    await c.reply(failing, timeout=90)
    await c.ws.send('{"type":"%s","ref":"%s"}' % (WORD, WORD))
    await c.until(lambda e: e["type"] == "error" and e.get("ref") == WORD)
    server.http("GET", "/api/characters/" + WORD)
    for n in range(5):
        await c.say(chat, "%s waits %d" % (WORD, n))
    return c.token, chat


async def all_answered(cluster, token, chat, n):
    async with Client(cluster.gateways(), token) as c:
        await c.open(chat=chat)
        end = time.monotonic() + 60
        while True:
            turns = (await c.ask("history", chat=chat, limit=200))["turns"]
            done = [t for t in turns if any(v["finish"] is not None for v in t["variants"])]
            if len(done) == n:
                break
            assert time.monotonic() < end, turns
            await asyncio.sleep(0.2)
        assert WORD in str(turns), "the words are there for their user"


def plant(servers):
    """Through each server, so that what is searched is what it writes."""
    def rabbitmq():
        queue = servers.ask("rabbitmq", "ctl", 1, "list_queues", "--silent", "name", "type").split("\n")
        queue = next(q.split()[0] for q in queue if q.endswith("quorum"))
        servers.ask("rabbitmq", "ctl", 1, "eval", 'rabbit_basic:publish(rabbit_misc:r(<<"/">>, exchange, <<"">>), <<"%s">>, [{delivery_mode, 2}], <<"%s">>).'
                    % (queue, WORD))

    def redis():
        servers.ask("redis", "cli", "SET", "planted", WORD)
        servers.ask("redis", "cli", "SAVE")

    def postgres():
        servers.ask("postgres", "sql", 1, "troupe", "CREATE TABLE planted (t text); INSERT INTO planted VALUES ('%s')" % WORD)

    def cassandra():
        cql = Cql(servers.env["TROUPE_TEST_CASSANDRA"])
        cql.run("CREATE KEYSPACE planted WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
        cql.run("CREATE TABLE planted.t (k text PRIMARY KEY)")
        cql.run("INSERT INTO planted.t (k) VALUES ('%s')" % WORD)

    def s3():
        with open(os.path.join(servers.dir("s3"), "planted"), "w") as f:
            f.write(WORD)

    for name in servers.nodes:
        locals()[name]()
        end = time.monotonic() + 20
        while not search(servers.dir(name)):
            assert time.monotonic() < end, "a word planted in %s was not found" % name
            time.sleep(0.2)
        print("   planted word found in %s" % name)


async def canary_on_servers():
    nodes = dict.fromkeys(("rabbitmq", "redis", "postgres", "cassandra", "s3"), 1)
    # a slow engine, so that words rest in the queues when the processes are killed
    engine = "stub:?delay_ms=400&gap_ms=5&fail_word=%s-fails" % WORD
    with Servers(**nodes) as servers, Cluster(servers, engine, inference=1, gateway=1, preprocess=1, notifier=1, TROUPE_LOG_LEVEL="debug") as cluster:
        token, chat = await talk(cluster, servers)
        for p in cluster.processes:
            p.stop(signal.SIGKILL)  # with words in the queues
        look(servers, cluster, "killed")
        servers.do("cassandra", "stop")  # it writes out what it holds
        servers.do("rabbitmq", "stop")
        look(servers, cluster, "written out", cassandra_up=False)
        servers.start()
        restart(cluster)
        await all_answered(cluster, token, chat, 8)
        for p in cluster.processes:
            assert p.stop() == 0, p.tail()
        look(servers, cluster, "ended")
        assert sum(os.path.getsize(p.log_path) for p in cluster.processes) > 10000, "the logs are there"
        with open(cluster.processes[0].log_path, "a") as f:
            f.write(WORD.lower())
        assert search(cluster.folder), "a word planted in a log was not found"
        plant(servers)


run([canary_on_servers])
