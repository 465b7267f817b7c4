"""What operators have: metrics that add up and that Prometheus reads, a turn's story by its trace, secrets as files."""
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from troupe import Client, Server, free_port, run  # noqa: E402

SECRET = "a-very-secret-word"


def metrics(server):
    """{name with labels: value}, after promtool has found nothing wrong with the text."""
    status, headers, body = server.http("GET", "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), (status, headers)
    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True)
    assert checked.returncode == 0 and not checked.stderr.strip(), checked.stderr.decode()
    text = body.decode()
    names = re.findall(r"^# TYPE (\S+)", text, re.M)
    assert len(names) == len(set(names)), "one TYPE a name"
    assert SECRET not in text
    return {k: float(v) for k, v in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.M)}


def buckets(m, name):
    """The counts of a histogram's buckets; they only grow, and the last is its count."""
    found = [(float("inf") if le == "+Inf" else float(le), m['%s_bucket{le="%s"}' % (name, le)])
             for le in re.findall(re.escape(name) + r'_bucket\{le="([^"]+)"\}', "\n".join(m))]
    counts = [n for _, n in sorted(found)]
    assert counts == sorted(counts) and counts[-1] == m[name + "_count"], (name, counts)
    assert sorted(found)[0][0] <= 0.001 and sorted(found)[-2][0] >= 300, "milliseconds to minutes"
    return counts


async def until_metric(server, name, value, seconds=20):
    end = time.monotonic() + seconds
    while True:
        m = await asyncio.get_running_loop().run_in_executor(None, metrics, server)
        if m.get(name) == value or time.monotonic() > end:
            assert m.get(name) == value, (name, m.get(name))
            return m
        await asyncio.sleep(0.1)


async def metrics_under_load_add_up():
    chats, each = 8, 6
    usage, delays = {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 0}, []

    async def chat(server):
        async with Client(server) as c:
            chat = (await c.open("mira"))["chat"]
            for n in range(each):
                r = await c.reply(await c.say(chat, "%s %d" % (SECRET, n)))
                assert r["finish"] == "stop", r
                delays.append(r["ttft_ms"])
                for k in usage:
                    usage[k] += r["usage"][k]
            if chats_open:
                await gate.wait()

    with Server("stub:?delay_ms=20&gap_ms=2") as s:
        assert metrics(s)['troupe_turns_total{finish="stop"}'] == 0  # there from the start
        gate, chats_open = asyncio.Event(), True
        tasks = [asyncio.create_task(chat(s)) for _ in range(chats)]
        while len(delays) < chats * each and not any(t.done() for t in tasks):  # under load it is as well formed
            await asyncio.get_running_loop().run_in_executor(None, metrics, s)
            await asyncio.sleep(0.05)
        m = await until_metric(s, 'troupe_queue_seconds_count{queue="gateway"}', chats * each)
        n = chats * each
        assert m["troupe_turns_accepted_total"] == n and m["troupe_accept_seconds_count"] == n, m
        assert m['troupe_turns_total{finish="stop"}'] == n and m['troupe_turns_total{finish="error"}'] == 0
        for name in ("troupe_turn_ttft_seconds", "troupe_turn_queue_seconds", "troupe_turn_generation_seconds",
                     "troupe_turn_seconds"):
            assert buckets(m, name)[-1] == n, name
        for queue in ("incoming", "notify", "gateway"):
            assert m['troupe_queue_seconds_count{queue="%s"}' % queue] == n, queue
        assert m['troupe_queue_seconds_count{queue="inference"}'] >= n  # one that is put back is taken again
        assert abs(m["troupe_turn_ttft_seconds_sum"] - sum(delays) / 1000) < 0.001 * n, (m["troupe_turn_ttft_seconds_sum"], sum(delays))
        # queue time, time to the first token, generation and the whole turn lie around each other
        assert 0.020 * n <= m["troupe_turn_ttft_seconds_sum"] <= m["troupe_turn_seconds_sum"] + 0.001 * n
        assert m["troupe_turn_queue_seconds_sum"] <= m["troupe_turn_ttft_seconds_sum"]
        assert 0.015 * n <= m["troupe_turn_generation_seconds_sum"] <= m["troupe_turn_seconds_sum"] + 0.001 * n
        for kind, key in (("prompt", "prompt_tokens"), ("cached", "cached_tokens"), ("completion", "completion_tokens")):
            assert m['troupe_tokens_total{kind="%s"}' % kind] == usage[key], (kind, usage)
        assert usage["completion_tokens"] > 0 and usage["prompt_tokens"] > 0
        assert m["troupe_gateway_connections"] >= chats and m["troupe_workers"] == 1
        assert m['troupe_http_requests_total{status="2xx"}'] >= chats
        m = await until_metric(s, 'troupe_queue_length{queue="inference"}', 0)
        m = await until_metric(s, 'troupe_queue_length{queue="incoming"}', 0)
        assert m["process_resident_memory_bytes"] > 1e6 and m["process_open_fds"] > 10
        assert abs(m["process_start_time_seconds"] - time.time()) < 300
        gate.set()
        await asyncio.gather(*tasks)
        assert s.http("GET", "/nothing-there")[0] == 404
        assert metrics(s)['troupe_http_requests_total{status="4xx"}'] == 1


async def waiting_turns_show():
    with Server("stub:?delay_ms=8000") as s:
        async with Client(s) as c:
            chat = (await c.open("mira"))["chat"]
            turns = [await c.say(chat, "wait %d" % n) for n in range(3)]
            m = await until_metric(s, 'troupe_queue_length{queue="inference"}', 3, 7.5)
            assert m["troupe_turns_in_hand"] >= 1
            for t in turns:
                await c.ask("stop", turn=t)
            for t in turns:
                await c.reply(t)
            m = metrics(s)
            assert m['troupe_turns_total{finish="stopped"}'] == 3 and m['troupe_turns_total{finish="stop"}'] == 0


async def errors_are_counted_by_code():
    with Server("stub:?fail_word=crash") as s:
        async with Client(s) as c:
            chat = (await c.open("mira"))["chat"]
            await c.reply(await c.say(chat, "crash"), timeout=60)
            m = metrics(s)
            assert m['troupe_turns_total{finish="error"}'] == m['troupe_turn_errors_total{code="engine_failed"}'] == 1
            assert m["troupe_turn_attempts_failed_total"] >= 1


def other_http(port, path):
    """(status, text) of the listener for operators."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, path), timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


async def metrics_have_their_own_listener():
    port = free_port()
    with Server("stub:", TROUPE_METRICS_LISTEN="127.0.0.1:%d" % port) as s:
        assert s.http("GET", "/metrics")[0] == 404  # not for clients then
        assert s.http("GET", "/healthz")[0] == 200 and s.http("GET", "/readyz")[0] == 200
        status, text = other_http(port, "/metrics")
        assert status == 200 and 'troupe_store_up{store="history"} 1' in text, (status, text[:300])
        assert "troupe_turns_total" in text and 'troupe_queue_length{queue="notify"} 0' in text
        assert other_http(port, "/readyz") == (200, '{"status":"ready","role":"up"}')
        assert other_http(port, "/healthz")[0] == 200 and other_http(port, "/api/characters")[0] == 404
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bad = Server("stub:", TROUPE_METRICS_LISTEN="127.0.0.1:%d" % taken.getsockname()[1])
        try:
            got = bad.command("up")
            assert got.returncode == 1 and "TROUPE_METRICS_LISTEN" in got.stderr and "in use" in got.stderr, got
        finally:
            bad.remove()


def lines_of(server, trace):
    """The log lines with this trace, in order, as dicts."""
    with open(server.log_path, errors="replace") as f:
        text = f.read()
    assert SECRET not in text
    return [dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)', l)) for l in text.splitlines() if "trace=" + trace in l]


def trace_of(turn):
    return turn.replace("-", "")[16:]


async def wait_for_line(server, trace, ev):
    for _ in range(200):
        found = lines_of(server, trace)
        if any(l["ev"] == ev for l in found):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError((ev, found))


async def a_trace_tells_a_turn():
    story = ["turn.accepted", "turn.routed", "turn.claimed", "turn.begun", "turn.first_text", "turn.stored", "turn.notified",
             "turn.delivered", "turn.delivered"]
    with Server("stub:?delay_ms=60&gap_ms=2") as s:
        async with Client(s) as a, Client(s, a.token) as b:
            chat = (await a.open("mira"))["chat"]
            await b.open(chat=chat)
            first = await a.say(chat, SECRET)
            second = await a.say(chat, SECRET + " again")
            for c in (a, b):
                await c.reply(second)
        for turn in (first, second):
            found = await wait_for_line(s, trace_of(turn), "turn.done")
            assert all(l["chat"] == chat and l["turn"] == turn and l["variant"] == "0" for l in found), found
            events = [l["ev"] for l in found if l["ev"].startswith("turn.")]
            assert sorted(e for e in events if e in story) == sorted(story), events
            at = [events.index(e) for e in story[1:2] + story[3:-1]]
            assert at == sorted(at), events
            # the call to work may be taken before its sender hears that it was sent; its events wait for `accepted`
            assert events.index("turn.accepted") < events.index("turn.delivered"), events
            ms = {l["ev"]: int(l["ms"]) for l in found if "ms" in l}
            assert 60 <= ms["turn.first_text"] <= ms["turn.stored"] <= ms["turn.delivered"] < 10000, ms
            by = {l["ev"]: l for l in found}
            assert by["turn.routed"]["queue"] == "inference.any.1" and by["turn.notified"]["gateways"] == "1"
            assert by["turn.done"]["finish"] == "stop" and int(by["turn.done"]["completion"]) > 0
            assert all(l["level"] in ("debug", "info") for l in found), found


async def one_line_a_role_at_info():
    with Server("stub:", TROUPE_LOG_LEVEL="info") as s:
        async with Client(s) as c:
            chat = (await c.open("mira"))["chat"]
            turn = await c.say(chat, SECRET)
            await c.reply(turn)
            found = await wait_for_line(s, trace_of(turn), "turn.done")
            found = await wait_for_line(s, trace_of(turn), "turn.notified")
            assert sorted(l["ev"] for l in found) == ["turn.accepted", "turn.done", "turn.notified", "turn.routed"], found
            assert (await c.ask("regenerate", turn=turn))["variant"] == 1
            await c.reply(turn, 1)
            for _ in range(200):
                again = [l for l in lines_of(s, trace_of(turn)) if l["variant"] == "1"]
                if len(again) == 4:
                    break
                await asyncio.sleep(0.05)
            assert sorted(l["ev"] for l in again) == ["turn.accepted", "turn.done", "turn.notified", "turn.routed"], again
            assert not any("ms" in l for l in again), again  # its id tells the turn's age, not the variant's


def secrets_as_files():
    s = Server("stub:")
    path = os.path.join(s.folder, "engine")
    del s.env["TROUPE_ENGINE"]
    s.env["TROUPE_ENGINE_FILE"] = path
    try:
        got = s.command("up")
        assert got.returncode == 2 and "TROUPE_ENGINE_FILE" in got.stderr and path in got.stderr, got
        with open(path, "w") as f:
            f.write("stub:?delay_ms=1\n")
        s.start()
        assert json.loads(s.http("GET", "/readyz")[2])["status"] == "ready"
        assert s.stop() == 0
        got = s.command("up", TROUPE_ENGINE="stub:")
        assert got.returncode == 2 and "TROUPE_ENGINE and TROUPE_ENGINE_FILE" in got.stderr, got
    finally:
        s.remove()


run([metrics_under_load_add_up, waiting_turns_show, errors_are_counted_by_code, metrics_have_their_own_listener,
     a_trace_tells_a_turn, one_line_a_role_at_info, secrets_as_files])
