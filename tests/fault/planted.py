"""planted.py: faults that are made so that the checker must find them: on the way to a client (planter.py), and in the servers themselves."""
import asyncio
import random
import signal
import time

from chatter import Chatter, finish
from cql import Cql
from ledger import check
from planter import PLANTS, Planter


async def begin(server, rng, planters, rate=0.7):
    """A chat with two devices for each; they go on until each has what its planter wants."""
    chatters = [Chatter(server(random.Random(rng.random())), random.Random(rng.random()), n, 0.05, p, devices=2, rate=rate) for n, p in enumerate(planters)]
    goal = asyncio.Event()
    for c in chatters:
        c.goal = goal
        c.task = asyncio.create_task(c.run())
    end = time.monotonic() + 60
    while not all(c.ledger and len(c.ledger.accepted) >= 8 and (not c.planter or c.planter.ready(c.ledger)) for c in chatters):
        await asyncio.sleep(0.1)
        for c in chatters:
            if c.task.done():
                c.task.result()
        if time.monotonic() > end:
            print("  nothing to break: %s" % [c.planter.sort for c in chatters if c.planter and not c.planter.ready(c.ledger)])
            break
    return chatters


async def planted_on_the_way(server, rng):
    """[(what, found)]: one chat for each sort, and one where nothing is planted and nothing may be found."""
    chatters = await begin(server, rng, [None] + [Planter(sort) for sort in PLANTS])
    await finish(chatters, 8)
    results = []
    for c in chatters:
        found = check([c.ledger])
        if c.planter is None:
            results.append(("nothing is found where nothing is planted", not any(found.values())))
        else:
            counted = len(found[PLANTS[c.planter.sort]])
            results.append(("planted fault is found: %s: %s (%d)" % (c.planter.sort, PLANTS[c.planter.sort], counted), counted > 0))
    return results


def month(turn):
    return time.strftime("%Y%m", time.gmtime(int(turn.replace("-", "")[:12], 16) / 1000))


async def planted_in_the_cluster(servers, cluster, rng):
    """Faults that no client makes up: [(what, found)]."""
    chatters = await begin(cluster.gateways, rng, [None, None])
    workers = cluster.of("inference")
    for p in workers:
        p.send(signal.SIGSTOP)
    while not any(c.unanswered for c in chatters):
        await asyncio.sleep(0.02)
    start, waiting = time.monotonic(), {(c.n, *k) for c in chatters for k in c.unanswered}
    asyncio.get_running_loop().call_later(3, lambda: [p.send(signal.SIGCONT) for p in workers])
    while waiting and time.monotonic() - start < 60:
        await asyncio.sleep(0.02)
        waiting &= {(c.n, *k) for c in chatters for k in c.unanswered}
    took = time.monotonic() - start
    l = chatters[0].ledger
    end = time.monotonic() + 30
    while time.monotonic() < end and not (chosen_back(l) and kept(l)):
        await asyncio.sleep(0.1)
    clean = sum(map(len, (await finish(chatters, 30)).values())) == 0
    results = [("planted in the cluster: all workers stand still for 3 s, which the time shows, and nothing else is broken", clean and not waiting and took > 2.5)]
    cql = Cql(servers.stores()["TROUPE_HISTORY"])

    async def erase(what, sort, turn, part, rows=""):
        cql.run("DELETE FROM %s.turns WHERE chat = %s AND bucket = %s AND turn = %s AND part = %d%s" % (cql.keyspace, l.chat, month(turn), turn, part, rows))
        before = len(check([l])[sort])
        await chatters[0].list_all()
        results.append(("planted in the cluster: %s: %s" % (what, sort), len(check([l])[sort]) > before))

    await erase("a reply erased in Cassandra", "lost", kept(l)[0], 1)
    await erase("an edit erased in Cassandra", "wrong", kept(l)[0], 0, " AND rev > 0")
    await erase("a choice erased in Cassandra", "wrong", chosen_back(l)[0], -1)
    return results


def kept(l):
    """The turns that were edited, and not deleted."""
    return [c.turn for c in l.changes if c.kind == "edit" and c.done and not l.of(c.turn, "delete")]


def chosen_back(l):
    """The turns where an older variant than the newest one was chosen last."""
    turns = {c.turn: [c.value for c in l.of(c.turn, "regenerate", "choose") if c.done] for c in l.changes if c.kind == "choose" and not l.of(c.turn, "delete")}
    return [turn for turn, values in turns.items() if values and values[-1] < max(values)]
