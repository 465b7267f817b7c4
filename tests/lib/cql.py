"""cql.py: what the Python test drivers ask Cassandra themselves, without a driver."""
import socket
import struct

ONE, QUORUM = 1, 4


class Cql:
    """As much of Cassandra's protocol as a statement without values needs."""

    def __init__(self, url, timeout=30):
        self.keyspace = url.rsplit("/", 1)[1].split("?")[0]
        host, port = url.split("//")[1].split("/")[0].split("@")[-1].split(",")[0].rsplit(":", 1)
        self.s = socket.create_connection((host, int(port)), timeout=timeout)
        self.call(1, struct.pack(">HH11sH5s", 1, 11, b"CQL_VERSION", 5, b"3.0.0"))

    def take(self, n):
        data = b""
        while len(data) < n:
            more = self.s.recv(n - len(data))
            assert more, "Cassandra closed"
            data += more
        return data

    def call(self, opcode, body):
        self.s.sendall(struct.pack(">BBhBI", 4, 0, 0, opcode, len(body)) + body)
        _, _, _, opcode, length = struct.unpack(">BBhBI", self.take(9))
        answer = self.take(length)
        assert opcode != 0, answer
        return answer

    def run(self, text, consistency=ONE):
        raw = text.encode()
        return self.call(7, struct.pack(">I", len(raw)) + raw + struct.pack(">HB", consistency, 0))
