"""servers.py: the real servers of the tests, started by tests/servers/NAME.sh in a folder of their own.

    python servers.py [--keep DIR] NAME[=NODES]... -- COMMAND...
starts them, runs the command with their TROUPE_TEST_… variables, stops them, and ends as the command did.
"""
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "servers")
ALL = ("rabbitmq", "redis", "postgres", "cassandra", "s3")


class Servers:
    def __init__(self, folder=None, **nodes):
        """nodes: name -> how many; none: one of each."""
        self.nodes = nodes or dict.fromkeys(ALL, 1)
        self.folder = folder or tempfile.mkdtemp(prefix="troupe-servers-")
        os.chmod(self.folder, 0o755)  # PostgreSQL's user goes through it
        self.env = {}

    def dir(self, name):
        return os.path.join(self.folder, name)

    def do(self, name, verb, *args, timeout=180):
        subprocess.run([os.path.join(HERE, name + ".sh"), verb, self.dir(name), *map(str, args)], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=timeout)

    def ask(self, name, verb, *args):
        return subprocess.run([os.path.join(HERE, name + ".sh"), verb, self.dir(name), *map(str, args)], check=True,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60).stdout

    def start(self):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda item: self.do(item[0], "start", item[1]), self.nodes.items()))
        for name in self.nodes:
            with open(os.path.join(self.dir(name), "env")) as f:
                self.env.update(line.rstrip("\n").split("=", 1) for line in f)
        return self

    def stores(self):
        """The configuration of our roles on these servers."""
        names = {"TROUPE_BROKER": "TROUPE_TEST_AMQP", "TROUPE_REGISTRY": "TROUPE_TEST_REDIS",
                 "TROUPE_CATALOGUE": "TROUPE_TEST_PG", "TROUPE_HISTORY": "TROUPE_TEST_CASSANDRA" if self.nodes.get("cassandra") == 1 else "TROUPE_TEST_CASSANDRA3"}
        stores = {key: self.env[var] for key, var in names.items() if var in self.env}
        if "TROUPE_TEST_S3" in self.env:
            stores.update(TROUPE_MEDIA="s3://troupe-media", S3_ENDPOINT_URL=self.env["TROUPE_TEST_S3"],
                          S3_ACCESS_KEY_ID=self.env["TROUPE_TEST_S3_ACCESS_KEY"], S3_SECRET_ACCESS_KEY=self.env["TROUPE_TEST_S3_SECRET_KEY"])
        return stores

    def stop(self, keep=False):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self.do(name, "kill"), self.nodes))
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop(keep=True)
            raise

    def __exit__(self, *_):
        self.stop(keep=bool(os.environ.get("TROUPE_TEST_KEEP")))


def main():
    args = sys.argv[1:]
    split = args.index("--")
    nodes = dict((a.split("=") + ["1"])[:2] for a in args[:split])
    with Servers(**nodes) as s:
        code = subprocess.run(args[split + 1:], env={**os.environ, **s.env}).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
