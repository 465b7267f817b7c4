"""conformance.py ECHO: a WebSocket tester that nobody here wrote (kosoku, the cases of Autobahn) against the gateway's
handshake and framing, which ECHO (tests/conformance/echo.c) serves with an echo in the protocol's place.

One line a case.  Left out: 12 and 13, permessage-deflate is not offered.  By contract the gateway refuses what some
cases want echoed: binary messages (1003), messages of more than 131,072 bytes (1009); there the code of its close is
looked at.  Then what the tester has no case for.  At last faults are planted: the same judgement must find them.
"""
import asyncio
import contextlib
import fnmatch
import json
import os
import signal
import struct
import sys
import tempfile

from proxy import Proxy, read_head

KOSOKU = os.path.join(os.path.dirname(sys.executable), "kosoku")
TOO_BIG = ["9.1.[2-6]", "9.3.*", "9.5.*"]  # 9.3: 4 MiB, 9.5: 1 MiB, in pieces
BINARY = ["1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*"]
CASES = 301
PLANTED = {  # what must be found, and what by
    "1.1.2": "a text is changed",
    "2.10": "pongs are lost",
    "1.2.2": "a binary message is not closed with 1003",
    "3.1": "a reserved bit is not closed with 1002",
    "6.3.1": "bad UTF-8 is not closed with 1007",
    "9.1.2": "a message too big is not closed with 1009",
    "unmasked": "an unmasked frame is not closed with 1002",
}


def one_of(case, patterns):
    return any(fnmatch.fnmatchcase(case, p) for p in patterns)


def judge(case, r):
    """(the case's name with what was asked of it, None or why it failed)"""
    for code, patterns, what in ((1003, BINARY, "binary"), (1009, TOO_BIG, "too big")):
        if one_of(case, patterns):
            label = "%s closes %d by contract: %s" % (case, code, what)
            got = r["remoteCloseCode"]
            return label, None if got == code else "closed with %s" % got
    good = ("OK", "INFORMATIONAL")
    if r["behavior"] in good and r["behaviorClose"] in good:
        return case, None
    return case, "%s, close %s, code %s" % (r["behavior"], r["behaviorClose"], r["remoteCloseCode"])


async def test(port, include):
    """The tester's report: case -> its record."""
    with tempfile.TemporaryDirectory() as folder:
        args = ["-o", folder, "-p", "8", "-x", "12.*", "-x", "13.*"]
        for pattern in include:
            args += ["-i", pattern]
        quiet = asyncio.subprocess.DEVNULL
        run = await asyncio.create_subprocess_exec(KOSOKU, *args, "127.0.0.1:%d" % port, stdout=quiet, stderr=quiet)
        try:
            await asyncio.wait_for(run.wait(), 120)
        except asyncio.TimeoutError:
            run.kill()
            await run.wait()
        try:
            with open(os.path.join(folder, "index.json")) as f:
                report = json.load(f)
        except OSError:
            return {}
    return next(iter(report.values()), {})


# ---- beside the tester: what is wrong on a client's side alone, or what it has no case for ----

def frame(first, payload=b"", length=None):
    """A masked frame; length: its second byte and what follows, instead of the right ones."""
    return bytes([first]) + (length or bytes([0x80 | len(payload)])) + bytes(4) + payload


BESIDE = [  # name, sent, opcodes wanted (8 with the code)
    ("unmasked", b"\x81\x05hello", [(8, 1002)]),
    ("unmasked-ping", b"\x89\x00", [(8, 1002)]),
    ("ping-of-126", frame(0x89, b"x" * 126, b"\xfe\x00\x7e"), [(8, 1002)]),
    ("length-top-bit", frame(0x81, b"", b"\xff" + struct.pack(">Q", 1 << 63)), [(8, 1002)]),
    ("length-not-shortest-16", frame(0x81, b"hello", b"\xfe\x00\x05"), [(8, 1002)]),
    ("length-not-shortest-64", frame(0x81, b"hello", b"\xff" + struct.pack(">Q", 5)), [(8, 1002)]),
    ("largest", frame(0x81, b"x" * 131072, b"\xff" + struct.pack(">Q", 131072)), [1]),
    ("one-byte-too-big", frame(0x81, b"x", b"\xff" + struct.pack(">Q", 131073)), [(8, 1009)]),
    ("too-big-by-fragments", frame(0x01, b"x" * 100) + frame(0x80, b"", b"\xff" + struct.pack(">Q", 130973)),
     [(8, 1009)]),
    ("twenty-pings-in-one-write", b"".join(frame(0x89, b"%d" % i) for i in range(20)), [10] * 20),
    ("pings-inside-a-message", frame(0x01, b"a") + frame(0x89) + frame(0x89) + frame(0x80, b"b"), [10, 10, 1]),
    ("close-of-one-byte", frame(0x88, b"x"), [(8, 1002)]),
    ("close-reason-not-utf8", frame(0x88, b"\x03\xe8\xff"), [(8, 1007)]),
    ("bad-utf8-before-its-message-ends", frame(0x01, b"ab\xff"), [(8, 1007)]),
    ("text-after-close", frame(0x88, b"\x03\xe8") + frame(0x81, b"late"), [(8, 1000)]),
]


async def beside(port, sent, want):
    """None, or what came instead.  One byte at a time as well: how the bytes are cut must not matter."""
    for piece in (len(sent), 1) if len(sent) < 4096 else (len(sent), 1000):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        got = []
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
            await read_head(reader)
            for at in range(0, len(sent), piece):
                writer.write(sent[at:at + piece])
                await writer.drain()
            while len(got) < len(want):
                first, n = await asyncio.wait_for(reader.readexactly(2), 5)
                if n >= 126:
                    n = int.from_bytes(await reader.readexactly(2 if n == 126 else 8), "big")
                payload = await reader.readexactly(n)
                got.append((8, int.from_bytes(payload[:2], "big")) if first & 15 == 8 else first & 15)
            if isinstance(want[-1], tuple) and await asyncio.wait_for(reader.read(1), 5) != b"":
                got.append("more after the close")
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as e:
            got.append(type(e).__name__)
        finally:
            writer.transport.abort()
        if got != want:
            return "in pieces of %d: wanted %s, got %s" % (piece, want, got)
    return None


async def judge_all(port, include=()):
    """(name, None or why) of every case."""
    results = [judge(case, r) for case, r in (await test(port, include)).items()]
    for label, sent, want in BESIDE:
        results.append((label, await beside(port, sent, want)))
    return results


@contextlib.asynccontextmanager
async def served(echo):
    """The port of a running echo; its end, leaks and the sanitizers' words count."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TROUPE_")}
    env.update(TROUPE_LISTEN="127.0.0.1:0", TROUPE_DRAIN_SECONDS="5")
    run = await asyncio.create_subprocess_exec(echo, env=env, stdout=asyncio.subprocess.PIPE)
    try:
        line = await asyncio.wait_for(run.stdout.readline(), 20)
        yield int(line.decode().removeprefix("port "))
        run.send_signal(signal.SIGTERM)
        rc = await asyncio.wait_for(run.wait(), 20)
        print("ok the echo ends well" if rc == 0 else "not ok the echo ends well: exit %d" % rc)
        if rc != 0:
            raise SystemExit(1)
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()


async def main(echo):
    failed = 0
    async with served(echo) as port:
        results = await judge_all(await Proxy("127.0.0.1", port).start())
        for label, why in results:
            print("ok %s" % label if why is None else "not ok %s: %s" % (label, why))
            failed += why is not None
        count = len(results) - len(BESIDE)
        if count != CASES:
            print("not ok the tester ran %d of %d cases" % (count, CASES))
            failed += 1

        spoiled_port = await Proxy("127.0.0.1", port, planted=True).start()
        spoiled = await judge_all(spoiled_port, [case for case in PLANTED if "." in case])
        found = {label.split()[0] for label, why in spoiled if why is not None}
        for case, what in PLANTED.items():
            print("%s planted fault is found by %s: %s" % ("ok" if case in found else "not ok", case, what))
            failed += case not in found
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
