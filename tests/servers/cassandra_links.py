#!/usr/bin/env python3
"""cassandra_links.py DIR NODES PORT: what the nodes of one Cassandra cluster say to each other, to be cut.

Node N says that it is reached at 127.0.1.N, where this listens and passes everything on to 127.0.0.N; clients reach the node itself.
While these files are in DIR/links:
  commits   no commit of a conditional write passes: it is agreed upon, and only the node that led it has its rows
  cut.N     nothing passes from or to node N, which goes on to answer clients
  trace     each message's verb is written to DIR/links.log
"""
import asyncio
import os
import struct
import sys

FOLDER, NODES, PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
LINKS = os.path.join(FOLDER, "links")
MAGIC = 0xCA552DFA
PAXOS_COMMIT = {35}


def is_set(name):
    return os.path.exists(os.path.join(LINKS, name))


def trace(text):
    if is_set("trace"):
        with open(os.path.join(FOLDER, "links.log"), "a") as f:
            f.write(text + "\n")


def vint(data, at):
    """An unsigned number: as many bytes follow the first as that has leading ones."""
    extra = 0
    while extra < 8 and data[at] & (0x80 >> extra):
        extra += 1
    n = data[at] & (0xFF >> extra)
    for byte in data[at + 1:at + 1 + extra]:
        n = n << 8 | byte
    return n, at + 1 + extra


def verb(payload):
    """Of the message that begins here: id, time, expiry, verb, …"""
    at = vint(payload, 0)[1] + 4
    return vint(payload, vint(payload, at)[1])[0]


async def first_message(reader):
    """Who calls, and the bytes that say so: magic, flags, size, address, port, checksum."""
    head = await reader.readexactly(9)
    assert struct.unpack(">I", head[:4])[0] == MAGIC, head
    rest = await reader.readexactly(head[8] + 4)
    return rest[3], head + rest


async def forward(reader, writer, source, target):
    """Frames: 17 bits of length and one that says whole messages, a checksum of 3 bytes, the payload, one of 4 bytes."""
    while True:
        head = await reader.readexactly(6)
        bits = int.from_bytes(head[:3], "little")
        body = await reader.readexactly((bits & 0x1FFFF) + 4)
        what = verb(body) if bits & 0x20000 and len(body) > 12 else None
        trace("%d>%d %s %d" % (source, target, what, len(body)))
        if is_set("cut.%d" % source) or is_set("cut.%d" % target) or (what in PAXOS_COMMIT and is_set("commits")):
            continue
        writer.write(head + body)
        await writer.drain()


async def back(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def link(reader, writer, target):
    out = None
    try:
        source, greeting = await first_message(reader)
        trace("open %d>%d" % (source, target))
        back_end, out = await asyncio.open_connection("127.0.0.%d" % target, PORT)
        out.write(greeting)
        for task in asyncio.as_completed([forward(reader, out, source, target), back(back_end, writer)]):
            await task
            break
    except (OSError, EOFError, AssertionError, asyncio.IncompleteReadError) as e:
        trace("end %r" % e)
    finally:
        for w in (writer, out):
            if w is not None:
                w.close()


async def main():
    os.makedirs(LINKS, exist_ok=True)
    servers = [await asyncio.start_server(lambda r, w, n=n: link(r, w, n), "127.0.1.%d" % n, PORT) for n in range(1, NODES + 1)]
    await asyncio.gather(*[s.serve_forever() for s in servers])


asyncio.run(main())
