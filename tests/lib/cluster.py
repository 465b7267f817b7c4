"""cluster.py: our roles as processes, any number of each, on real servers; whoever ends is started again, as a supervisor does.
linked: each process reaches each server through a proxy of its own, so that one link can be cut (proxy.py)."""
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from proxy import Proxies
from troupe import BINARY, Server, free_port

SERVERS = {"TROUPE_BROKER": "rabbitmq", "TROUPE_REGISTRY": "redis", "TROUPE_CATALOGUE": "postgres", "TROUPE_HISTORY": "cassandra",
           "S3_ENDPOINT_URL": "s3"}


class Process:
    """One role, under supervision."""

    def __init__(self, cluster, role, n, args=()):
        self.cluster, self.role, self.n, self.args = cluster, role, n, args
        self.name = "%s.%d" % (role, n)
        self.log_path = os.path.join(cluster.folder, self.name + ".log")
        self.port = free_port() if role == "gateway" else None
        self.prefix = ()  # a command that becomes it: ["env", "NAME=value"]
        self.proc, self.ready, self.starts, self.stopping = None, threading.Event(), 0, False
        self.thread = None
        self.links = {}  # server -> names of its links
        self.urls = {}   # configuration through them

    def spawn(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
        env.update(self.cluster.env)
        env.update(self.urls)
        if self.port:
            env["TROUPE_LISTEN"] = "127.0.0.1:%d" % self.port
        self.ready.clear()
        with open(self.log_path, "ab") as log:
            self.proc = subprocess.Popen([*self.prefix, BINARY, self.role, *self.args], cwd=self.cluster.folder, env=env,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        self.starts += 1

    def link(self, proxies):
        for key, server in SERVERS.items():
            url = self.cluster.env.get(key, "")

            def through(at):
                name = "%s/%s.%d" % (self.name, server, len(self.links.setdefault(server, [])))
                self.links[server].append(name)
                return "127.0.0.1:%d" % proxies.open(name, at[1], at[2])

            self.urls[key] = re.sub(r"([\w.]+):(\d+)(?=[,/]|$)", through, url)

    def supervise(self):
        while not self.stopping:
            self.spawn()
            if b"ready" in self.proc.stdout.readline():
                self.ready.set()
            self.proc.wait()
            self.proc.stdout.close()
            if not self.stopping:
                time.sleep(0.1)

    def start(self):
        self.thread = threading.Thread(target=self.supervise, daemon=True)
        self.thread.start()

    def send(self, sig):
        try:
            self.proc.send_signal(sig)
        except (ProcessLookupError, AttributeError):
            pass

    def stop(self, sig=signal.SIGTERM):
        """End it for good; its exit status."""
        self.stopping = True
        if self.thread is None:
            return None
        self.send(signal.SIGCONT)
        self.send(sig)
        self.thread.join(40)
        return self.proc.returncode

    def tail(self, n=12):
        with open(self.log_path, errors="replace") as f:
            return "".join(f.readlines()[-n:])


class Gateways:
    """What Client and Chatter take for a server: another gateway at every connection."""

    def __init__(self, gateways, rng=random):
        self.gateways, self.rng = gateways, rng
        self.front = Server.__new__(Server)

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.rng.choice(self.gateways).port

    def http(self, *args):
        self.front.url = self.url
        return self.front.http(*args)

    def session(self, token=None):
        self.front.url = self.url
        return self.front.session(token)


class Cluster:
    def __init__(self, servers, engine="stub:", inference=3, gateway=2, preprocess=2, notifier=2, dedicated=(), linked=False, **env):
        self.folder = tempfile.mkdtemp(prefix="troupe-cluster-")
        self.proxies = Proxies() if linked else None
        self.servers = servers
        self.env = {"TROUPE_ENGINE": engine, "TROUPE_RATE_USER": "0", "TROUPE_RATE_ADDRESS": "0", "TROUPE_LOG_LEVEL": "info",
                    "TROUPE_DRAIN_SECONDS": "5", "TROUPE_WORKER_TTL_MS": "2000", **servers.stores()}
        self.env.update({k: str(v) for k, v in env.items()})
        counts = {"notifier": notifier, "inference": inference, "preprocess": preprocess, "gateway": gateway}
        self.processes = [Process(self, role, n) for role, count in counts.items() for n in range(count)]
        self.processes += [Process(self, "inference", 100 + n, ["--character", c]) for n, c in enumerate(dedicated)]

    def of(self, role):
        return [p for p in self.processes if p.role == role]

    def gateways(self, rng=random):
        return Gateways(self.of("gateway"), rng)

    def command(self, *args, prefix=(), **env):
        e = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
        e.update(self.env)
        e.update(env)
        return subprocess.run([*prefix, BINARY, *args], cwd=self.folder, env=e, capture_output=True, text=True, timeout=120)

    def start(self, timeout=60):
        got = self.command("init")
        assert got.returncode == 0, got.stderr
        for p in self.processes:
            if self.proxies:
                p.link(self.proxies)
            p.start()
        for p in self.processes:
            assert p.ready.wait(timeout), "%s did not start: %s" % (p.name, p.tail())
        return self

    def stop(self):
        threads = [threading.Thread(target=p.stop, args=(signal.SIGKILL,)) for p in self.processes if not p.stopping]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if self.proxies:
            self.proxies.stop()
        if os.environ.get("TROUPE_TEST_KEEP"):
            print("kept", self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()
