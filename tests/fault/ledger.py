"""ledger.py: what a client saw, and the checker that counts the broken promises in it (contract 3).

A ledger is per chat: what was sent and accepted, and every reply, delta and listing in the order in which it was seen,
with the number of the connection on which it came.
"""
from dataclasses import dataclass, field


@dataclass
class Ledger:
    chat: str
    name: str                                      # of the character: the stub's reply begins with it
    sent: list = field(default_factory=list)       # (client id, text) in the order of sending
    accepted: dict = field(default_factory=dict)   # client id -> turn, at the first `accepted`
    again: list = field(default_factory=list)      # (client id, turn) of every `accepted`
    replies: list = field(default_factory=list)    # (connection, turn, variant, text, finish)
    errors: list = field(default_factory=list)     # (connection, turn, code)
    streams: dict = field(default_factory=dict)    # (connection, turn, variant) -> held bytes
    gaps: list = field(default_factory=list)       # (connection, turn, offset, held)
    wrong_streams: list = field(default_factory=list)
    refused: bool = False                          # a message was refused (and sent again later, behind others)
    listing: list = field(default_factory=list)    # the turns as the history has them at the end

    def opened(self, conn, frame):
        for turn in frame["turns"]:
            for v in turn["variants"]:
                key = (conn, turn["turn"], v["variant"])
                if v["finish"] is None:
                    self.streams[key] = v["text"].encode()
                else:
                    self.replies.append((conn, turn["turn"], v["variant"], v["text"], v["finish"], "listed"))

    def event(self, conn, frame):
        kind = frame["type"]
        if kind == "delta":
            key = (conn, frame["turn"], frame["variant"])
            held = self.streams.get(key, b"")
            if frame["offset"] > len(held):
                self.gaps.append((conn, frame["turn"], frame["offset"], len(held)))
            self.streams[key] = held[: frame["offset"]] + frame["text"].encode()
        elif kind == "reply":
            key = (conn, frame["turn"], frame["variant"])
            if not frame["text"].encode().startswith(self.streams.get(key, b"")):
                self.wrong_streams.append((conn, frame["turn"], self.streams[key], frame["text"]))
            self.replies.append((conn, frame["turn"], frame["variant"], frame["text"], frame["finish"], "event"))
        elif kind == "error" and frame.get("turn"):
            self.errors.append((conn, frame["turn"], frame["code"]))


def check(ledgers):
    """Counts by sort, and an example of each."""
    found = {"lost": [], "doubled": [], "disorder": [], "gaps": []}
    for l in ledgers:
        texts = {cid: text for cid, text in l.sent}
        listed = {t["turn"]: t for t in l.listing}
        by_turn = {}
        for cid, turn in l.accepted.items():
            by_turn[turn] = cid
            entry = listed.get(turn)
            done = [v for v in entry["variants"] if v["finish"] is not None] if entry else []
            if not done:
                found["lost"].append((l.chat, turn, "accepted, no reply in the history"))
            elif done[0]["finish"] != "stop" or done[0]["text"] != "%s heard: %s" % (l.name, texts[cid]):
                found["lost"].append((l.chat, turn, "another reply: %r" % done[0]))
            if not any(r[1] == turn for r in l.replies) and not any(e[1] == turn for e in l.errors):
                found["lost"].append((l.chat, turn, "no reply was ever seen"))
            if len(done) > 1:
                found["doubled"].append((l.chat, turn, "two variants stored"))
        # one turn a client id, one client id a turn
        for cid, turn in l.again:
            if l.accepted[cid] != turn:
                found["doubled"].append((l.chat, turn, "one id, two turns"))
        if len(by_turn) != len(l.accepted):
            found["doubled"].append((l.chat, None, "two ids, one turn"))
        said = [t["text"] for t in l.listing if t.get("text") is not None]
        if len(said) != len(set(said)):
            found["doubled"].append((l.chat, None, "a text stands in two turns"))
        # visible replies: at most one event a connection, always the same text
        seen, events = {}, set()
        for conn, turn, variant, text, finish, how in l.replies:
            if seen.setdefault((turn, variant), (text, finish)) != (text, finish):
                found["doubled"].append((l.chat, turn, "two different replies"))
            if how == "event":
                if (conn, turn, variant) in events:
                    found["doubled"].append((l.chat, turn, "two reply events on one connection"))
                events.add((conn, turn, variant))
        # order: turns increase in the order of sending, where none was refused (a refused one is sent again behind others, and a repeated
        # one hears `accepted` when it is found); replies on a connection come in the order of turns, always
        turns = [l.accepted[cid] for cid, _ in l.sent if cid in l.accepted]
        if not l.refused and turns != sorted(turns):
            found["disorder"].append((l.chat, None, "turns are not in the order of sending"))
        last = {}
        for conn, turn, _, _, _, how in l.replies:
            if turn < last.get(conn, ""):
                found["disorder"].append((l.chat, turn, "its reply came after that of a later turn"))
            last[conn] = max(turn, last.get(conn, ""))
        if [t["turn"] for t in l.listing] != sorted(t["turn"] for t in l.listing):
            found["disorder"].append((l.chat, None, "the history is not in order"))
        for gap in l.gaps:
            found["gaps"].append((l.chat, *gap))
        for wrong in l.wrong_streams:
            found["gaps"].append((l.chat, *wrong))
    return found
