"""proxy.py: stands between the WebSocket tester and the gateway, as the tester knows neither tokens nor subprotocols.

Into the tester's handshake it writes the path, a token and the subprotocol; out of the answer it takes the subprotocol.
All after that passes untouched, so that what is tested is the gateway's own: unless a fault is planted on purpose.
"""
import asyncio
import json
import urllib.request


def session(host, port):
    request = urllib.request.Request("http://%s:%d/api/session" % (host, port), data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)["token"]


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    return first, lines


def name(line):
    return line.partition(b":")[0].strip().lower()


class Proxy:
    """An address that takes connections for host:port.  planted: the server's framing is spoiled."""

    def __init__(self, host, port, planted=False):
        self.host, self.port, self.planted = host, port, planted
        self.token = session(host, port).encode()

    async def start(self):
        self.server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def connected(self, reader, writer):
        far = None
        try:
            far_reader, far = await asyncio.open_connection(self.host, self.port)
            first, lines = await read_head(reader)
            lines = [line for line in lines if name(line) not in (b"origin", b"sec-websocket-protocol")]
            lines += [b"Authorization: Bearer " + self.token, b"Sec-WebSocket-Protocol: troupe.v1"]
            far.write(b"\r\n".join([b"GET /ws HTTP/1.1"] + lines) + b"\r\n\r\n")
            first, lines = await read_head(far_reader)
            lines = [line for line in lines if name(line) != b"sec-websocket-protocol"]
            writer.write(b"\r\n".join([first] + lines) + b"\r\n\r\n")
            back = Spoiler() if self.planted else None
            await asyncio.gather(self.pump(reader, far, None), self.pump(far_reader, writer, back))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for w in (far, writer):
                if w is not None:
                    w.transport.abort()

    @staticmethod
    async def pump(reader, writer, spoiler):
        try:
            while data := await reader.read(65536):
                writer.write(spoiler.feed(data) if spoiler else data)
                await writer.drain()
            writer.write_eof()
        except OSError:  # this way is shut; the other one may still have something to bring
            pass


class Spoiler:
    """The planted faults: every second pong is lost, a close frame's code is 1000, a text's first byte is changed."""

    def __init__(self):
        self.held, self.pongs = b"", 0

    def feed(self, data):
        self.held += data
        out = b""
        while (frame := self.take()) is not None:
            head, payload = frame
            opcode = head[0] & 15
            if opcode == 10:
                self.pongs += 1
                if self.pongs % 2 == 0:
                    continue
            elif opcode == 8 and payload:
                payload = b"\x03\xe8" + payload[2:]
            elif opcode == 1 and payload:
                payload = b"#" + payload[1:]
            out += head + payload
        return out

    def take(self):
        b = self.held
        if len(b) < 2:
            return None
        n, at = b[1], 2
        if n == 126:
            n, at = int.from_bytes(b[2:4], "big"), 4
        elif n == 127:
            n, at = int.from_bytes(b[2:10], "big"), 10
        if len(b) < at + n:
            return None
        self.held = b[at + n:]
        return b[:at], b[at:at + n]
