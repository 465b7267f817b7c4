"""real_turns.py [--rounds N] [--seconds N]: a turn on the real servers, as Markdown: Troupe's roles as processes (stub engine, no delay), the
same engine operations alone (raw_ops) and a plain Python pipeline (peer/pipeline.py), in turn in each round; medians.

Run by scripts/bench.sh servers, which builds what it needs; TROUPE_TEST_BINARY is a release build with Cassandra.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests", "lib"))
from cluster import Cluster  # noqa: E402
from servers import Servers  # noqa: E402

ENGINES = ("rabbitmq", "cassandra", "redis", "postgres")
# chats at once, turns a second of all together (none: each as fast as it can)
LOADS = {"1": (1, None), "64, together 30 turns/s": (64, 30), "64": (64, None)}
ROLES = ("gateway", "preprocess", "inference", "notifier")
PIPELINE = os.path.join(TOP, "bench", "peer", "pipeline.py")


def server_pids(servers):
    groups = []
    for name in ENGINES:
        with open(os.path.join(servers.dir(name), "1.pid")) as f:
            pid = f.read().strip()
        children = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True).stdout.split() if name == "postgres" else []
        groups += ["%s=%s" % (name, p) for p in [pid, *children]]
    return groups


def figures(command, env=None):
    out = subprocess.run([str(c) for c in command], env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {k: float(v) for k, v in re.findall(r"(\w+)=([\d.]+)", out)}


def address(url):
    return re.sub(r"^.*://(.*@)?", "", url).split("/")[0]


class Peer:
    """The stages of the Python pipeline."""

    def __init__(self, servers):
        self.servers = servers
        self.env = {**os.environ, "PEER_AMQP": servers.env["TROUPE_TEST_AMQP"], "PEER_REDIS": servers.env["TROUPE_TEST_REDIS"],
                    "PEER_CASSANDRA": address(servers.env["TROUPE_TEST_CASSANDRA"])}
        subprocess.run([sys.executable, PIPELINE, "init"], env=self.env, check=True)
        self.stages = {n: subprocess.Popen([sys.executable, PIPELINE, n], env=self.env, stdout=subprocess.PIPE) for n in ROLES[1:]}
        for stage in self.stages.values():
            assert b"ready" in stage.stdout.readline()

    def measure(self, chats, seconds, rate=None):
        pids = server_pids(self.servers) + ["%s=%d" % (n, s.pid) for n, s in self.stages.items()]
        return figures([sys.executable, PIPELINE, "front", chats, seconds, *([rate] if rate else [])], {**self.env, "PEER_PIDS": ",".join(pids)})

    def stop(self):
        for stage in self.stages.values():
            stage.kill()
            stage.wait()


def measure_troupe(servers, cluster, chats, seconds, rate=None):
    pids = server_pids(servers) + ["%s=%d" % (p.role, p.proc.pid) for p in cluster.processes]
    gateways = ",".join("127.0.0.1:%d" % p.port for p in cluster.of("gateway"))
    return figures([os.path.join(TOP, "build/load"), "turns", gateways, chats, seconds, ",".join(pids), *([rate] if rate else [])])


def measure_raw(servers, chats, seconds, consume, rate=None):
    env = servers.env
    return figures([os.path.join(TOP, "build/raw_ops"), address(env["TROUPE_TEST_AMQP"]), "troupe", "tr-secret",
                    address(env["TROUPE_TEST_CASSANDRA"]), address(env["TROUPE_TEST_REDIS"]), "tr-secret", "%d@%d" % (chats, rate) if rate else chats, seconds,
                    *(["consume"] if consume else []), ",".join(server_pids(servers))])


def redis_calls(servers):
    """name -> calls so far, without those that are there for other reasons than turns."""
    text = servers.ask("redis", "cli", "INFO", "commandstats")
    return {k: int(v) for k, v in re.findall(r"cmdstat_(\w+(?:\|\w+)?):calls=(\d+)", text)}


def measure_all(args, servers):
    rows, calls = {}, {}

    def add(side, load, got):
        rows.setdefault((side, load), []).append(got)
        print("%s, %s: %s" % (side, load, got), file=sys.stderr, flush=True)
    with Cluster(servers, "stub:", inference=1, gateway=1, preprocess=1, notifier=1, TROUPE_LOG_LEVEL="warn",
                 TROUPE_WORKER_TTL_MS=10000) as cluster:
        peer = Peer(servers)
        try:
            for chats in (64, 64):  # Cassandra's JVM compiles what it runs often; nothing of this is counted
                measure_troupe(servers, cluster, chats, args.seconds)
                measure_raw(servers, chats, args.seconds, True)
            for _ in range(args.rounds):
                for load, (chats, rate) in LOADS.items():
                    add("raw", load, measure_raw(servers, chats, args.seconds, False, rate))
                    add("consumed", load, measure_raw(servers, chats, args.seconds, True, rate))
                    before = redis_calls(servers)
                    got = measure_troupe(servers, cluster, chats, args.seconds, rate)
                    after = redis_calls(servers)
                    calls[load] = {k: round((n - before.get(k, 0)) / got["turns"], 2) for k, n in after.items() if n > before.get(k, 0)}
                    add("troupe", load, got)
                    add("python", load, peer.measure(chats, args.seconds, rate))
        finally:
            peer.stop()
    return rows, calls


def median(rows, key):
    return statistics.median(r.get(key, 0) for r in rows)


def tell(rows, calls, args):
    cpu = lambda r, names: sum(r.get("cpu_" + n, 0) for n in names)  # noqa: E731
    own = {"raw": ("self",), "consumed": ("self",), "troupe": ROLES, "python": ("front", *ROLES)}
    words = {"raw": "the engine operations alone", "consumed": "the same, each message also consumed", "troupe": "Troupe",
             "python": "Python pipeline"}
    print("### A turn on RabbitMQ, Redis, PostgreSQL and Cassandra (stub engine, no delay)\n")
    print("Medians of %d interleaved rounds of %d s; one node of each server and one process a role.\n" % (args.rounds, args.seconds))
    print("| chats at once | what | turns/s | p50 | p99 | own CPU a turn | turns/s a CPU-second of its own | CPU a turn with the servers' |")
    print("|---|---|---|---|---|---|---|---|")
    for load in LOADS:
        for side in words:
            r = rows[(side, load)]
            mine = statistics.median(cpu(x, own[side]) for x in r)
            both = statistics.median(cpu(x, own[side]) + cpu(x, ENGINES) for x in r)
            print("| %s | %s | %.0f | %.1f ms | %.1f ms | %.0f µs | %.0f | %.1f ms |" % (
                load, words[side], median(r, "turns_per_s"), median(r, "p50_us") / 1e3, median(r, "p99_us") / 1e3, mine, 1e6 / mine, both / 1e3))
    print("\nCPU a turn by process, µs (user + system; the servers' also while they only compile, compact and sync):\n")
    names = [*ROLES, *ENGINES]
    print("| chats at once | what | %s |" % " | ".join(names))
    print("|---|---|%s" % ("---|" * len(names)))
    for load in LOADS:
        for side in words:
            r = rows[(side, load)]
            value = lambda n: median(r, "cpu_front") if side == "python" and n == "gateway" else median(r, "cpu_" + n)  # noqa: E731
            print("| %s | %s | %s |" % (load, words[side], " | ".join("%.0f" % value(n) if value(n) else "" for n in names)))
    print()
    for load in LOADS:
        t, raw, consumed, python = (rows[(s, load)] for s in ("troupe", "raw", "consumed", "python"))
        ratio = lambda a, b, key: statistics.median(x[key] / y[key] for x, y in zip(a, b))  # noqa: E731
        per_cpu = statistics.median(cpu(y, own["python"]) / cpu(x, own["troupe"]) for x, y in zip(t, python))
        print("%s at once: p50 %.2f times the operations alone (%.2f with consuming), %+.1f ms; p99 %+.1f ms; turns/s %.2f times theirs (%.2f); "
              "turns/s %.1f times the Python pipeline's, %.1f times a CPU-second.\n" % (
                  load, ratio(t, raw, "p50_us"), ratio(t, consumed, "p50_us"),
                  statistics.median(x["p50_us"] - y["p50_us"] for x, y in zip(t, raw)) / 1e3,
                  statistics.median(x["p99_us"] - y["p99_us"] for x, y in zip(t, raw)) / 1e3,
                  ratio(t, raw, "turns_per_s"), ratio(t, consumed, "turns_per_s"), ratio(t, python, "turns_per_s"), per_cpu))
        print("Redis commands a turn: %s.\n" % ", ".join("%s %s" % kv for kv in sorted(calls[load].items())))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=int, default=10)
    args = p.parse_args()
    with Servers(tempfile.mkdtemp(prefix="bench-"), rabbitmq=1, redis=1, postgres=1, cassandra=1) as servers:
        rows, calls = measure_all(args, servers)
    tell(rows, calls, args)


main()
