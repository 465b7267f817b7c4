#!/usr/bin/env python3
"""cassandra_half.py DIR URL CHAT BUCKET TURN CHANGE: a turn's second variant as the chat's next change, half written.

Three nodes with links.  Node 1 leads the conditional write; its commits do not pass, so it alone has state and row, while all have
agreed.  Then the state (not the row) is read from nodes 1 and 2, which gives it to node 2.  At the end node 1 is paused, and nodes 2
and 3 tell of the change without having its row: ends with 0 if that is what they say."""
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from cql import Cql, QUORUM  # noqa: E402

FOLDER, URL, CHAT, BUCKET, TURN, CHANGE = sys.argv[1:]
WHERE = "WHERE chat = %s AND bucket = %s" % (CHAT, BUCKET)
STATE = "SELECT DISTINCT chat, bucket, change_no FROM turns " + WHERE
NEXT = int(CHANGE) + 1


def node(verb, n):
    subprocess.run([os.path.join(HERE, "cassandra.sh"), verb, FOLDER, str(n)], check=True)


def asked(cql, text, wanted):
    """Until two nodes have answered so: one that is paused is asked now and then, and missed."""
    for _ in range(20):
        try:
            if wanted in cql.run(text, QUORUM):
                return True
        except AssertionError as e:
            print("  asked again: %s" % e, flush=True)
        time.sleep(0.2)
    return False


def main():
    one, two = (Cql(URL.replace("127.0.0.1:", "127.0.0.%d:" % n, 1)) for n in (1, 2))
    for cql in (one, two):
        cql.run("USE " + cql.keyspace)
    commits = os.path.join(FOLDER, "links", "commits")
    with open(commits, "w"):
        pass
    try:
        applied = one.run(
            "BEGIN BATCH UPDATE turns SET change_no = %d %s IF change_no = %s AND next = null AND deleted = null;"
            " INSERT INTO turns (chat, bucket, turn, part, rev, role, created, change, sealed)"
            " VALUES (%s, %s, %s, 2, 0, 2, 1, %d, 0x01) IF NOT EXISTS; APPLY BATCH" % (NEXT, WHERE, CHANGE, CHAT, BUCKET, TURN, NEXT))
        assert applied.endswith(b"\0\0\0\1\1"), applied
        time.sleep(0.5)  # what is on its way is dropped
    finally:
        os.unlink(commits)
    node("pause", 3)
    number = NEXT.to_bytes(8, "big")
    ok = asked(two, STATE, number)
    node("resume", 3)
    assert ok, "nodes 1 and 2 do not tell of the change"
    node("pause", 1)
    assert asked(two, STATE, number), "node 2 was not given the state"
    count = two.run("SELECT count(change) FROM turns %s AND turn = %s AND part = 2" % (WHERE, TURN), QUORUM)
    assert count.endswith(b"\0\0\0\x08" + bytes(8)), "nodes 2 and 3 have the row: %r" % count


main()
