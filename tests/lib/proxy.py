"""proxy.py: TCP proxies between our processes and the servers, one a link, so that one process can be cut off from one server.

The proxies run in a process of their own (this file), told by lines on its standard input, each answered by a line:
    open NAME HOST PORT    a link; the answer is its own port on 127.0.0.1
    cut NAME               its connections are reset, new ones too
    swallow NAME           its connections stand, and new ones are taken; nothing arrives, either way
    mend NAME              what was swallowed arrives, as after a cable was out; new connections go through
"""
import asyncio
import os
import subprocess
import sys
import threading

CHUNK = 1 << 16


class Link:
    def __init__(self, host, port):
        self.host, self.port, self.state = host, port, "mend"
        self.writers, self.flows = set(), asyncio.Event()
        self.flows.set()

    async def take(self, reader, writer):
        self.writers.add(writer)
        try:
            await self.flows.wait()
            if self.state == "cut":
                return
            there, back = await asyncio.open_connection(self.host, self.port)
            self.writers.add(back)
            await asyncio.wait([asyncio.ensure_future(self.pump(reader, back)), asyncio.ensure_future(self.pump(there, writer))],
                               return_when=asyncio.FIRST_COMPLETED)
            self.end(back)
        except OSError:
            pass
        finally:
            self.end(writer)

    async def pump(self, reader, writer):
        try:
            while True:
                data = await reader.read(CHUNK)
                await self.flows.wait()
                if not data or self.state == "cut":
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    def end(self, writer):
        self.writers.discard(writer)
        writer.transport.abort()

    def set(self, state):
        self.state = state
        if state == "swallow":
            self.flows.clear()
        else:
            self.flows.set()
        if state == "cut":
            for writer in list(self.writers):
                self.end(writer)


async def serve():
    links = {}
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        verb, name, *rest = line.decode().split()
        if verb == "open":
            links[name] = Link(rest[0], int(rest[1]))
            server = await asyncio.start_server(links[name].take, "127.0.0.1", 0, backlog=512)
            print(server.sockets[0].getsockname()[1], flush=True)
        else:
            links[name].set(verb)
            print("ok", flush=True)


class Proxies:
    """The process of the proxies, from outside."""

    def __init__(self):
        self.proc = subprocess.Popen([sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()

    def tell(self, *words):
        with self.lock:
            self.proc.stdin.write(" ".join(map(str, words)) + "\n")
            self.proc.stdin.flush()
            return self.proc.stdout.readline().strip()

    def open(self, name, host, port):
        return int(self.tell("open", name, host, port))

    def stop(self):
        self.proc.stdin.close()
        self.proc.wait(10)


if __name__ == "__main__":
    asyncio.run(serve())
