"""bare.py: does a server answer, each of its nodes?  Asked by the barest client of each, so that what a server takes to come back can be told
apart from what our processes take to find it again."""
import re
import socket
import struct
import urllib.error
import urllib.request

from cql import Cql

WAIT = 2


def place(url):
    """(user, password, host, port)"""
    user, password, host, port = re.match(r"\w+://(?:([^:@/]*):([^@/]*)@)?([^:,/]+):(\d+)", url).groups()
    return user or "", password or "", host, int(port)


def nodes(url):
    """A URL for each of its hosts."""
    head, hosts, tail = re.match(r"(\w+://(?:[^@/]*@)?)([^/]+)(.*)", url).groups()
    return [head + host + tail for host in hosts.split(",")]


def redis(servers):
    _, password, host, port = place(servers.env["TROUPE_TEST_REDIS"])
    with socket.create_connection((host, port), WAIT) as s:
        s.sendall(("AUTH %s\r\nPING\r\n" % password).encode())
        answer = b""
        while answer.count(b"\r\n") < 2:
            more = s.recv(100)
            if not more:
                return False
            answer += more
        return b"+PONG" in answer


def short(text):
    return bytes([len(text)]) + text.encode()


def table(*fields):
    body = b"".join(short(key) + value for key, value in fields)
    return struct.pack(">I", len(body)) + body


class Amqp:
    """As much of AMQP 0-9-1 as one confirmed message needs."""

    def __init__(self, user, password, host, port):
        self.s = socket.create_connection((host, port), WAIT)
        self.s.sendall(b"AMQP\0\0\x09\x01")
        self.until(10, 10)
        login = ("\0%s\0%s" % (user, password)).encode()
        self.method(0, 10, 11, table() + short("PLAIN") + struct.pack(">I", len(login)) + login + short("en_US"))
        self.until(10, 30)
        self.method(0, 10, 31, struct.pack(">HIH", 16, 131072, 0))
        self.method(0, 10, 40, short("/") + short("") + b"\0")
        self.until(10, 41)
        self.method(1, 20, 10, short(""))
        self.until(20, 11)

    def frame(self, kind, channel, body):
        self.s.sendall(struct.pack(">BHI", kind, channel, len(body)) + body + b"\xce")

    def method(self, channel, klass, number, args):
        self.frame(1, channel, struct.pack(">HH", klass, number) + args)

    def take(self, n):
        data = b""
        while len(data) < n:
            more = self.s.recv(n - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def until(self, klass, number):
        while True:
            kind, _, size = struct.unpack(">BHI", self.take(7))
            body = self.take(size + 1)
            said = struct.unpack(">HH", body[:4]) if kind == 1 else None
            if said == (klass, number):
                return
            if said in ((10, 50), (20, 40)):
                raise ConnectionError("refused: %r" % body)

    def confirmed(self, queue):
        """A message in a quorum queue of its own."""
        quorum = b"S" + struct.pack(">I", 6) + b"quorum"
        self.method(1, 50, 10, struct.pack(">H", 0) + short(queue) + b"\x02" + table(("x-queue-type", quorum), ("x-max-length", b"I" + struct.pack(">i", 1))))
        self.until(50, 11)
        self.method(1, 85, 10, b"\0")
        self.until(85, 11)
        self.method(1, 60, 40, struct.pack(">H", 0) + short("") + short(queue) + b"\0")
        self.frame(2, 1, struct.pack(">HHQHB", 60, 0, 1, 0x1000, 2))
        self.frame(3, 1, b"x")
        self.until(60, 80)


def rabbitmq(servers):
    for n, url in enumerate(nodes(servers.env["TROUPE_TEST_AMQP"])):
        client = Amqp(*place(url))
        try:
            client.confirmed("bare.%d" % n)
        finally:
            client.s.close()
    return True


def postgres(servers):
    return servers.ask("postgres", "sql", 1, "troupe", "SELECT 1").strip() == "1"


def cassandra(servers):
    for url in nodes(servers.stores()["TROUPE_HISTORY"]):
        client = Cql(url, WAIT)
        try:
            client.run("SELECT * FROM %s.chats LIMIT 1" % client.keyspace, consistency=4)
        finally:
            client.s.close()
    return True


def s3(servers):
    try:
        urllib.request.urlopen(servers.env["TROUPE_TEST_S3"], timeout=WAIT).close()
    except urllib.error.HTTPError as e:
        return e.code < 500
    return True


ASK = {"redis": redis, "rabbitmq": rabbitmq, "postgres": postgres, "cassandra": cassandra, "s3": s3}


def answers(servers, name):
    try:
        return ASK[name](servers)
    except Exception:  # whatever it is, it does not answer
        return False
