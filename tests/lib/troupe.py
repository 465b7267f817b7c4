"""troupe.py: what the Python test drivers share: a server in a folder of its own, and a client of the protocol.

A Server is the real program; a Client is a browser's place: session, WebSocket, requests by ref, events in order.
"""
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid

import websockets

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("TROUPE_TEST_BINARY", os.path.join(TOP, "build/src/troupe"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, engine="stub:", folder=None, **env):
        self.folder = folder or tempfile.mkdtemp(prefix="troupe-test-")
        self.port = free_port()
        self.url = "http://127.0.0.1:%d" % self.port
        self.env = {
            "TROUPE_LISTEN": "127.0.0.1:%d" % self.port,
            "TROUPE_ENGINE": engine,
            "TROUPE_RATE_USER": "0",
            "TROUPE_RATE_ADDRESS": "0",
            "TROUPE_LOG_LEVEL": "debug",
            "TROUPE_DRAIN_SECONDS": "5",
        }
        self.env.update({k: str(v) for k, v in env.items()})
        self.log_path = os.path.join(self.folder, "log")
        self.proc = None

    def spawn(self, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_") or k.startswith("TROUPE_TEST_")}
        env.update(self.env)
        with open(self.log_path, "ab") as log:
            self.proc = subprocess.Popen([BINARY, *(args or ["up"])], cwd=self.folder, env=env, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=log)
        return self

    def start(self, timeout=30):
        self.spawn()
        line = self.proc.stdout.readline()  # "Troupe is ready: …" or the end
        if b"ready" not in line:
            self.proc.wait()
            raise RuntimeError("troupe did not start: %s" % self.tail())
        return self

    async def start_async(self):
        return await asyncio.get_running_loop().run_in_executor(None, self.start)

    def kill(self, sig=signal.SIGKILL):
        if self.proc is not None and self.proc.poll() is None:
            self.proc.send_signal(sig)
        if self.proc is not None:
            self.proc.wait()
            self.proc.stdout.close()
            self.proc = None

    def stop(self, timeout=30):
        """SIGTERM; the exit status."""
        self.proc.terminate()
        code = self.proc.wait(timeout)
        self.proc.stdout.close()
        self.proc = None
        return code

    def tail(self, n=15):
        with open(self.log_path, errors="replace") as f:
            return "".join(f.readlines()[-n:])

    def command(self, *args, **env):
        e = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
        e.update(self.env)
        e.update(env)
        return subprocess.run([BINARY, *args], cwd=self.folder, env=e, capture_output=True, text=True, timeout=60)

    def http(self, method, path, body=None, headers=None):
        """(status, headers, bytes)"""
        req = urllib.request.Request(self.url + path, data=body, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(req, timeout=20) as r:
                return r.status, r.headers, r.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()

    def session(self, token=None):
        headers = {"Authorization": "Bearer " + token} if token else {}
        status, _, body = self.http("POST", "/api/session", b"", headers)
        assert status == 200, (status, body)
        return json.loads(body)

    def remove(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.proc is not None:  # a clean end, which is also where leaks are told
                code = self.stop()
                assert code == 0, "troupe ended with %s: %s" % (code, self.tail(40))
        finally:
            if os.environ.get("TROUPE_TEST_KEEP"):
                self.kill()
                print("kept", self.folder, file=sys.stderr)
            else:
                self.remove()


class Refused(Exception):
    def __init__(self, frame):
        super().__init__("%(code)s: %(message)s" % frame)
        self.frame = frame
        self.code = frame["code"]


class Client:
    """One connection.  `events` holds every frame that is no answer; on_event sees each as it comes."""

    def __init__(self, server, token=None, on_event=None):
        self.server, self.on_event = server, on_event
        self.token = token or server.session()["token"]
        self.events, self.waiting, self.thens, self.n = [], {}, {}, 0
        self.ws = self.reader = None
        self.news = asyncio.Event()
        self.closed = None

    async def connect(self):
        self.ws = await websockets.connect(self.server.url.replace("http", "ws") + "/ws", subprotocols=["troupe.v1"],
                                           additional_headers={"Authorization": "Bearer " + self.token},
                                           max_size=None, ping_interval=None, compression=None, open_timeout=20)
        self.reader = asyncio.create_task(self.read())
        return self

    async def read(self):
        try:
            async for text in self.ws:
                self.take(json.loads(text))
        except websockets.ConnectionClosed as e:
            self.closed = e.rcvd.code if e.rcvd else 1006
        except OSError:
            self.closed = 1006
        if self.closed is None:
            self.closed = self.ws.close_code
        for f in self.waiting.values():
            if not f.done():
                f.set_exception(ConnectionError("closed %s" % self.closed))
        self.waiting.clear()
        self.news.set()

    def take(self, frame):
        f = self.waiting.pop(frame.get("ref"), None)
        then = self.thens.pop(frame.get("ref"), None)
        if then is not None:
            then(frame)
        if f is not None:
            if not f.done():
                f.set_result(frame)
            if self.on_event and frame["type"] in ("opened", "accepted"):
                self.on_event(frame)
        else:
            self.events.append(frame)
            if self.on_event:
                self.on_event(frame)
        self.news.set()

    async def ask(self, type_, timeout=20, then=None, **fields):
        """then(frame): is called with the answer before the frame behind it is taken, also where nobody waits any more."""
        self.n += 1
        ref = "r%d" % self.n
        f = asyncio.get_running_loop().create_future()
        self.waiting[ref] = f
        if then is not None:
            self.thens[ref] = then
        f.add_done_callback(lambda f: f.cancelled() or f.exception())  # it may be that nobody waits any more
        await self.ws.send(json.dumps({"type": type_, "ref": ref, **fields}))
        frame = await asyncio.wait_for(f, timeout)
        if frame["type"] == "error":
            raise Refused(frame)
        return frame

    async def open(self, character="mira", **fields):
        if "chat" not in fields:
            fields["character"] = character
        return await self.ask("open", **fields)

    async def say(self, chat, text, id=None, **fields):
        return (await self.ask("send", chat=chat, id=id or str(uuid.uuid4()), text=text, **fields))["turn"]

    async def until(self, test, timeout=20):
        """The first event that the test takes, of those that came or will come."""
        end = time.monotonic() + timeout
        seen = 0
        while True:
            while seen < len(self.events):
                seen += 1
                if test(self.events[seen - 1]):
                    return self.events[seen - 1]
            left = end - time.monotonic()
            if left <= 0 or self.closed is not None:
                raise TimeoutError("no such event; closed=%s; last: %s" % (self.closed, self.events[-5:]))
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except asyncio.TimeoutError:
                pass

    async def reply(self, turn, variant=0, timeout=20):
        return await self.until(lambda e: e["type"] in ("reply", "error") and e.get("turn") == turn
                                and e.get("variant", variant) == variant, timeout)

    async def close(self):
        if self.ws is not None:
            await self.ws.close()
            await self.reader

    async def __aenter__(self):
        return await self.connect()

    async def __aexit__(self, *_):
        await self.close()


def run(tests):
    """Run async or plain test functions of a dict or list; prints ok/not ok lines; exits 1 where one failed."""
    import traceback
    failed = 0
    only = sys.argv[1:]
    for test in tests:
        if only and not any(o in test.__name__ for o in only):
            continue
        start = time.monotonic()
        try:
            if asyncio.iscoroutinefunction(test):
                asyncio.run(test())
            else:
                test()
            print("ok %s (%.1f s)" % (test.__name__, time.monotonic() - start), flush=True)
        except Exception:
            failed += 1
            print("not ok %s" % test.__name__, flush=True)
            traceback.print_exc()
    sys.exit(1 if failed else 0)
