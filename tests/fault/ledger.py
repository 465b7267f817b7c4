"""ledger.py: what a chat's devices asked and saw, and the checker that counts the broken promises in it (contract 3).  No I/O.

A ledger is per chat: what was sent and accepted, what was asked of turns (edits, choices, regenerations, deletions), and every
reply, delta, change and listing in the order in which it was seen, with the connection on which it came: (device, number).

A change is repeated until it is answered.  Where a try of it was not, that try may still be done, at any later time: then more
than one final state is right.  Whichever it is, every device must hold the one that the history lists.
"""
from dataclasses import dataclass, field

from view import state

SORTS = ("lost", "doubled", "disorder", "gaps", "untold", "wrong")


@dataclass
class Change:
    device: int
    kind: str             # edit, choose, regenerate, delete
    turn: str
    value: object         # the text; the variant that is chosen; the variant that is to come
    asked: int = 0        # when, by the ledger's clock
    unsure: bool = False  # a try was not answered
    answer: str = ""      # "ok" or the code of a refusal; "" while there is none
    answered: int = 0

    @property
    def done(self):
        return self.answer == "ok"


@dataclass
class Told:
    """One frame that says how a turn is: `turn`, `changed`, `deleted`, `reply`, or `listed` and `gone` by `opened`."""
    clock: int
    conn: tuple
    kind: str
    turn: str
    state: dict = None    # of turn, changed, listed
    variant: int = None   # of reply


@dataclass
class Ledger:
    chat: str
    name: str                                      # of the character: the stub's reply begins with it
    devices: int = 1
    clock: int = 0
    sent: list = field(default_factory=list)       # (client id, text) in the order of sending
    accepted: dict = field(default_factory=dict)   # client id -> turn, at the first `accepted`
    again: list = field(default_factory=list)      # (client id, turn) of every `accepted`
    replies: list = field(default_factory=list)    # (connection, turn, variant, text, finish, how)
    errors: list = field(default_factory=list)     # (connection, turn, code)
    changes: list = field(default_factory=list)    # Change, in the order of asking
    told: list = field(default_factory=list)       # Told
    begun: dict = field(default_factory=dict)      # connection -> when the chat was first open on it
    streams: dict = field(default_factory=dict)    # (connection, turn, variant) -> held bytes
    gaps: list = field(default_factory=list)       # (connection, turn, offset, held)
    wrong_streams: list = field(default_factory=list)
    refused: bool = False                          # a message was refused (and sent again later, behind others)
    listing: list = field(default_factory=list)    # the turns as the history has them at the end
    differs: list = field(default_factory=list)    # (device, turn, what): its view at the end is not the listing

    def tick(self):
        self.clock += 1
        return self.clock

    def ask(self, change):
        change.asked = self.tick()
        self.changes.append(change)
        return change

    def answer(self, change, answer):
        change.answer, change.answered = answer, self.tick()

    def note(self, conn, kind, turn, state=None, variant=None):
        self.told.append(Told(self.tick(), conn, kind, turn, state, variant))

    def listed(self, conn, turn, kind):
        self.note(conn, kind, turn["turn"], state(turn))
        for v in turn["variants"]:
            if v["finish"] is None:
                self.streams[(conn, turn["turn"], v["variant"])] = v["text"].encode()

    def opened(self, conn, frame, gone=()):
        self.begun.setdefault(conn, self.tick())
        for turn in frame["turns"]:
            self.listed(conn, turn, "listed")
            for v in turn["variants"]:
                if v["finish"] is not None:
                    self.replies.append((conn, turn["turn"], v["variant"], v["text"], v["finish"], "listed"))
        for turn in gone:
            self.note(conn, "gone", turn)

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
            self.note(conn, "reply", frame["turn"], variant=frame["variant"])
            self.replies.append((conn, frame["turn"], frame["variant"], frame["text"], frame["finish"], "event"))
        elif kind == "error" and frame.get("turn"):
            self.errors.append((conn, frame["turn"], frame["code"]))
        elif kind in ("turn", "changed"):
            self.listed(conn, frame["turn"], kind)
        elif kind == "deleted":
            self.note(conn, "deleted", frame["turn"])

    def of(self, turn, *kinds):
        return [c for c in self.changes if c.turn == turn and c.kind in kinds]


def is_repeat(change, changes):
    """A regeneration that was done already when this one was asked for, by a device that did not know of it: it is answered, and nothing changes."""
    return change.kind == "regenerate" and any(
        c.kind == "regenerate" and c.turn == change.turn and c.value == change.value and c.done and c.answered < change.asked for c in changes)


# ---- what the history may list at the end

def texts_allowed(changes, first, before=None):
    """The texts that a turn may have: by the newest change that was done, and by those that may be done late."""
    edits = [c for c in changes if before is None or c.asked < before]
    done = sorted((c for c in edits if c.done), key=lambda c: c.answered)
    return {done[-1].value if done else first} | {c.value for c in edits if c.unsure or not c.answer}


def chosen_allowed(changes):
    done = sorted((c for c in changes if c.done), key=lambda c: c.answered)
    return {done[-1].value if done else 0} | {c.value for c in changes if c.unsure or not c.answer}


def check_turn(l, turn, text, entry, found):
    deletes, edits = l.of(turn, "delete"), l.of(turn, "edit")
    if any(c.done for c in deletes):
        if entry is not None:
            found["wrong"].append((l.chat, turn, "deleted, and listed"))
        return
    if entry is None and deletes:
        return  # one that was not answered was done
    now = state(entry) if entry is not None else {"variants": {}}
    variants = now["variants"]
    if 0 not in variants:
        found["lost"].append((l.chat, turn, "accepted, no reply in the history"))
        return
    if variants[0] != ("%s heard: %s" % (l.name, text), "stop"):
        found["lost"].append((l.chat, turn, "another reply: %r" % (variants[0],)))
    if now["text"] not in texts_allowed(edits, text):
        found["wrong"].append((l.chat, turn, "its text is %r, not one of %r" % (now["text"], texts_allowed(edits, text))))
    asked = [c for c in l.of(turn, "regenerate") if not is_repeat(c, l.changes)]
    for c in asked:
        heard = {"%s heard: %s" % (l.name, t) for t in texts_allowed(edits, text, c.asked)}
        if c.value not in variants:
            if c.done:
                found["lost"].append((l.chat, turn, "variant %d was promised, and is not there" % c.value))
        elif variants[c.value][1] != "stop" or variants[c.value][0] not in heard:
            found["wrong"].append((l.chat, turn, "variant %d is %r" % (c.value, variants[c.value])))
    for v in sorted(set(variants) - {0} - {c.value for c in asked}):
        found["doubled"].append((l.chat, turn, "variant %d was never asked for" % v))
    chosen = chosen_allowed([c for c in l.of(turn, "choose", "regenerate") if not is_repeat(c, l.changes)])
    if now["chosen"] not in chosen:
        found["wrong"].append((l.chat, turn, "variant %r is chosen, not one of %r" % (now["chosen"], chosen)))


# ---- what the devices were told

def shows(told, change):
    """Does this frame show that the change, or that state which it left, was there?"""
    s = told.state
    if told.kind in ("deleted", "gone"):
        return True  # nothing of the turn is left to tell
    if s is None:
        return False
    if change.kind == "edit":
        return s["text"] == change.value
    if change.kind == "choose":
        return s["chosen"] == change.value
    return change.kind == "regenerate" and change.value in s["variants"]


def untold(l, change):
    """The devices that were never told of a change that was answered, nor of a later one in its place."""
    later = [c for c in l.changes if c.turn == change.turn and c.asked >= change.asked and
             (c.kind == change.kind or {c.kind, change.kind} == {"choose", "regenerate"})]
    for device in range(l.devices):
        if device == change.device and change.kind != "regenerate":
            continue  # it heard `ok`; what it holds is looked at by its view
        mine = [t for t in l.told if t.conn[0] == device and t.turn == change.turn]
        if change.kind == "delete" and not mine:
            continue  # it never knew of the turn
        mine = [t for t in mine if t.clock > change.asked]
        shown = any(shows(t, c) for t in mine for c in later)
        if change.kind == "regenerate" and shown:  # the reply itself too; only a later connection hears of it by `changed` alone, and of `since`
            shown = any(t.kind in ("deleted", "gone", "listed") or t.variant == change.value or
                        (shows(t, change) and l.begun.get(t.conn, 0) > change.asked) for t in mine)
        if not shown and not any(c.kind == "delete" and c.done for c in l.changes if c.turn == change.turn and c is not change):
            yield device


def check_told(l, found):
    for change in l.changes:
        if change.answer not in ("", "ok") and not l.of(change.turn, "delete"):
            found["wrong"].append((l.chat, change.turn, "%s was refused: %s" % (change.kind, change.answer)))
        if change.done and not is_repeat(change, l.changes):
            for device in untold(l, change):
                found["untold"].append((l.chat, change.turn, "device %d was not told of: %s %r" % (device, change.kind, change.value)))
    deleted, turns, newest = set(), set(), {}
    for t in l.told:
        key = (t.conn, t.turn)
        if t.kind in ("deleted", "gone"):
            deleted.add(key)
        elif t.kind in ("turn", "changed") and key in deleted:
            found["disorder"].append((l.chat, t.turn, "%s after it was deleted" % t.kind))
        if t.kind == "turn":
            if key in turns:
                found["doubled"].append((l.chat, t.turn, "two turn events on one connection"))
            turns.add(key)
        edits = l.of(t.turn, "edit") if t.state is not None else []
        if not edits or any(c.unsure for c in edits):
            continue
        order = [c.value for c in sorted(edits, key=lambda c: (not c.answered, c.answered))]
        at = order.index(t.state["text"]) if t.state["text"] in order else -1
        if at < newest.get(key, -1):
            found["disorder"].append((l.chat, t.turn, "an older text after a newer one"))
        newest[key] = max(at, newest.get(key, -1))


def check_replies(l, found):
    # at most one event a connection, always the same text
    seen, events, last = {}, set(), {}
    for conn, turn, variant, text, finish, how in l.replies:
        if seen.setdefault((turn, variant), (text, finish)) != (text, finish):
            found["doubled"].append((l.chat, turn, "two different replies"))
        if how == "event":
            if (conn, turn, variant) in events:
                found["doubled"].append((l.chat, turn, "two reply events on one connection"))
            events.add((conn, turn, variant))
        if variant == 0:  # in the order of turns, always
            if turn < last.get(conn, ""):
                found["disorder"].append((l.chat, turn, "its reply came after that of a later turn"))
            last[conn] = max(turn, last.get(conn, ""))


def check_accepted(l, found):
    # one turn a client id, one client id a turn
    for cid, turn in l.again:
        if l.accepted[cid] != turn:
            found["doubled"].append((l.chat, turn, "one id, two turns"))
    if len(set(l.accepted.values())) != len(l.accepted):
        found["doubled"].append((l.chat, None, "two ids, one turn"))
    said = [t["text"] for t in l.listing if t.get("text") is not None]
    if len(said) != len(set(said)):
        found["doubled"].append((l.chat, None, "a text stands in two turns"))
    # turns increase in the order of sending, where none was refused (a refused one is sent again behind others, and a repeated
    # one hears `accepted` when it is found)
    turns = [l.accepted[cid] for cid, _ in l.sent if cid in l.accepted]
    if not l.refused and turns != sorted(turns):
        found["disorder"].append((l.chat, None, "turns are not in the order of sending"))
    if [t["turn"] for t in l.listing] != sorted(t["turn"] for t in l.listing):
        found["disorder"].append((l.chat, None, "the history is not in order"))


def check(ledgers):
    """What is broken, by sort, with what was seen of it."""
    found = {sort: [] for sort in SORTS}
    for l in ledgers:
        texts = dict(l.sent)
        listed = {t["turn"]: t for t in l.listing}
        for cid, turn in l.accepted.items():
            check_turn(l, turn, texts[cid], listed.get(turn), found)
            if not any(r[1] == turn for r in l.replies) and not any(e[1] == turn for e in l.errors) and not l.of(turn, "delete"):
                found["lost"].append((l.chat, turn, "no reply was ever seen"))
        check_accepted(l, found)
        check_replies(l, found)
        check_told(l, found)
        found["gaps"] += [(l.chat, *gap) for gap in l.gaps + l.wrong_streams]
        found["wrong"] += [(l.chat, turn, "device %d at the end: %s" % (device, what)) for device, turn, what in l.differs]
    return found


def count(ledgers):
    """(changes that were done, by kind; events that other devices were told of them, by kind)"""
    done, events = {}, {}
    for l in ledgers:
        for c in l.changes:
            done[c.kind] = done.get(c.kind, 0) + c.done
        for t in l.told:
            if t.kind in ("turn", "changed", "deleted", "reply"):
                events[t.kind] = events.get(t.kind, 0) + 1
    return done, events
