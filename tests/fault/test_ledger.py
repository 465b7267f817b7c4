"""test_ledger.py: the checker against ledgers written by hand, good and bad, and a device's view of a chat.  No server."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ledger import SORTS, Change, Ledger, check  # noqa: E402
from troupe import run  # noqa: E402
from view import View  # noqa: E402

A, B = (0, 1), (1, 1)  # connections: the first device, the second


def turn(id, text, *variants, chosen=0):
    return {"turn": id, "chat": "c", "text": text, "chosen": chosen,
            "variants": [{"variant": n, "text": "Mira heard: " + t if t is not None else "", "finish": "stop" if t is not None else None} for n, t in enumerate(variants)]}


def reply(id, text, variant=0):
    return {"type": "reply", "chat": "c", "turn": id, "variant": variant, "text": "Mira heard: " + text, "finish": "stop"}


def changed(t):
    return {"type": "changed", "chat": "c", "turn": t}


def asked(l, device, kind, id, value=None, answer="ok", unsure=False):
    c = l.ask(Change(device, kind, id, value, unsure=unsure))
    if answer:
        l.answer(c, answer)
    return c


def good():
    """Two turns on two devices; the first one is edited and gets a second variant, of which the first is chosen; a third turn is deleted."""
    l = Ledger("c", "Mira", devices=2)
    for n, text in ((1, "one"), (2, "two"), (3, "three")):
        id = "t%d" % n
        l.sent.append(("id%d" % n, text))
        l.accepted["id%d" % n] = id
        l.again.append(("id%d" % n, id))
        l.event(B, {"type": "turn", "chat": "c", "turn": turn(id, text)})
        for conn in (A, B):
            l.event(conn, {"type": "delta", "chat": "c", "turn": id, "variant": 0, "offset": 0, "text": "Mira"})
            l.event(conn, reply(id, text))
    asked(l, 0, "edit", "t1", "another")
    l.event(B, changed(turn("t1", "another", "one")))
    asked(l, 1, "regenerate", "t1", 1)
    for conn in (A, B):
        l.event(conn, reply("t1", "another", 1))
        l.event(conn, changed(turn("t1", "another", "one", "another", chosen=1)))
    asked(l, 0, "choose", "t1", 0)
    l.event(B, changed(turn("t1", "another", "one", "another")))
    asked(l, 0, "delete", "t3")
    l.event(B, {"type": "deleted", "chat": "c", "turn": "t3"})
    l.listing = [turn("t1", "another", "one", "another"), turn("t2", "two", "two")]
    return l


def counts(l):
    return {sort: len(found) for sort, found in check([l]).items() if found}



def a_repeated_regeneration_changes_nothing():
    l = good()
    asked(l, 0, "regenerate", "t1", 1)  # a device that did not know of it yet
    assert counts(l) == counts(good()), counts(l)
    l = good()
    asked(l, 0, "regenerate", "t2", 1)
    assert counts(l) != counts(good()), counts(l)  # the first one is looked for

def nothing_is_found_in_a_good_one():
    assert counts(good()) == {}, check([good()])


def each_sort_is_found():
    def without(kind, variant=None):
        return lambda l: setattr(l, "told", [t for t in l.told if not (t.conn == B and t.kind == kind and (variant is None or t.variant == variant or (t.state and variant in t.state["variants"])))])

    def drop_replies(l):
        l.told = [t for t in l.told if t.variant != 1]
        l.replies = [r for r in l.replies if r[2] != 1 or r[0] != B]

    def event(conn, frame):
        return lambda l: l.event(conn, frame)

    def listing(n, **fields):
        return lambda l: l.listing[n].update(fields)

    bad = [
        ("lost", listing(1, variants=[])),
        ("lost", listing(1, variants=turn("t2", "two", "not this")["variants"])),
        ("lost", listing(0, variants=turn("t1", "another", "one")["variants"])),
        ("lost", lambda l: l.listing.pop()),
        ("lost", lambda l: setattr(l, "replies", [r for r in l.replies if r[1] != "t2"])),
        ("doubled", event(A, reply("t2", "two"))),
        ("doubled", event(B, {"type": "turn", "chat": "c", "turn": turn("t2", "two")})),
        ("doubled", lambda l: l.again.append(("id1", "t9"))),
        ("doubled", lambda l: l.listing[1]["variants"].append({"variant": 1, "text": "Mira heard: two", "finish": "stop"})),
        ("doubled", listing(1, text="another")),
        ("disorder", lambda l: [l.event((0, 2), reply(t, x)) for t, x in (("t2", "two"), ("t1", "one"))]),
        ("disorder", lambda l: l.listing.reverse()),
        ("disorder", event(B, changed(turn("t3", "three", "three")))),
        ("disorder", lambda l: (asked(l, 0, "edit", "t2", "x"), asked(l, 0, "edit", "t2", "y"), l.event(B, changed(turn("t2", "y", "two"))),
                                l.event(B, changed(turn("t2", "x", "two"))), l.listing[1].update(text="y"))),
        ("gaps", event(A, {"type": "delta", "chat": "c", "turn": "t2", "variant": 1, "offset": 3, "text": "x"})),
        ("untold", without("changed")),
        ("untold", without("deleted")),
        ("untold", drop_replies),
        ("untold", lambda l: asked(l, 0, "edit", "t2", "last") and l.listing[1].update(text="last")),
        ("untold", lambda l: asked(l, 1, "choose", "t1", 1) and l.listing[0].update(chosen=1)),
        ("wrong", listing(0, text="nobody's")),
        ("wrong", listing(0, text="one")),
        ("wrong", listing(0, chosen=1)),
        ("wrong", lambda l: l.listing.append(turn("t3", "three", "three"))),
        ("wrong", lambda l: l.differs.append((1, "t1", "held, and not listed"))),
        ("wrong", lambda l: asked(l, 1, "choose", "t1", 5, answer="bad_request")),
        ("wrong", lambda l: l.listing[0]["variants"].__setitem__(1, {"variant": 1, "text": "Mira heard: one", "finish": "stop"})),
    ]
    for n, (sort, spoil) in enumerate(bad):
        l = good()
        spoil(l)
        assert sort in counts(l), (n, sort, check([l]))
    assert {sort for sort, _ in bad} == set(SORTS)


def what_was_not_answered_may_be_done_or_not():
    for answer in ("", "ok"):  # never answered, or by a later try
        for text in ("two", "late") if answer == "" else ("late",):
            l = good()
            asked(l, 0, "edit", "t2", "late", answer=answer, unsure=True)
            l.event(B, changed(turn("t2", "late", "two")))
            l.listing[1]["text"] = text
            assert counts(l) == {}, check([l])
    for there in (True, False):
        l = good()
        asked(l, 0, "delete", "t2", answer="", unsure=True)
        if not there:
            l.listing.pop()
        assert counts(l) == {}, check([l])
    # a try that was not answered may be done behind a later edit, never another text
    l = good()
    asked(l, 0, "edit", "t2", "slow", unsure=True)
    asked(l, 0, "edit", "t2", "last")
    l.event(B, changed(turn("t2", "last", "two")))
    for text, ok in (("slow", True), ("last", True), ("two", False)):
        l.listing[1]["text"] = text
        assert (counts(l) == {}) == ok, (text, check([l]))


def a_variant_comes_by_its_reply_or_on_a_later_connection():
    l = good()
    asked(l, 0, "regenerate", "t2", 1)
    l.event(A, reply("t2", "two", 1))
    l.event(A, changed(turn("t2", "two", "two", "two", chosen=1)))
    l.listing[1] = turn("t2", "two", "two", "two", chosen=1)
    l.event(B, changed(l.listing[1]))
    assert counts(l) == {"untold": 1}, check([l])  # it had the chat open, and never got the reply
    l.opened((1, 2), {"turns": []})
    l.event((1, 2), changed(l.listing[1]))
    assert counts(l) == {}, check([l])


def a_later_state_tells_an_earlier_change():
    l = good()
    asked(l, 0, "edit", "t2", "x")
    asked(l, 0, "edit", "t2", "y")
    l.opened((1, 2), {"turns": [turn("t2", "y", "two")]})
    l.listing[1]["text"] = "y"
    assert counts(l) == {}, check([l])


def a_view_follows_frames_and_reconnections():
    v = View()
    v.opened({"turns": [turn("t0", None, "hello"), turn("t1", "one", "one"), turn("t2", "two")]}, None)
    assert v.after() == "t1"
    v.event({"type": "turn", "chat": "c", "turn": turn("t3", "three")})
    v.event(reply("t2", "two"))
    assert v.after() == "t2" and v.answered("t2", 0) and not v.answered("t3", 0)
    v.event({"type": "deleted", "chat": "c", "turn": "t1"})
    v.event(reply("t1", "one"))  # late, of a turn that is gone
    assert v.differs([turn("t0", None, "hello"), turn("t2", "two", "two"), turn("t3", "three")]) == []
    # it was away: the third turn is gone, a fourth came, the second was edited
    assert v.opened({"turns": [turn("t4", "four", "four")], "more": False}, "t2") == ["t3"]
    v.event(changed(turn("t2", "other", "two")))
    listing = [turn("t0", None, "hello"), turn("t2", "other", "two"), turn("t4", "four", "four")]
    assert v.differs(listing) == []
    v.own(Change(0, "edit", "t4", "mine"))
    assert [d[0] for d in v.differs(listing)] == ["t4"]
    v.own(Change(0, "delete", "t4", None))
    assert [d[0] for d in v.differs(listing)] == ["t4"]
    # older turns than the first page has are nothing to this device
    v = View()
    v.opened({"turns": [turn("t%03d" % n, "x", "x") for n in range(50, 100)]}, None)
    v.event(changed(turn("t001", "x", "x")))
    assert v.differs([turn("t%03d" % n, "x", "x") for n in range(100)]) == []


run([nothing_is_found_in_a_good_one, each_sort_is_found, what_was_not_answered_may_be_done_or_not, a_variant_comes_by_its_reply_or_on_a_later_connection,
     a_later_state_tells_an_earlier_change, a_repeated_regeneration_changes_nothing,
     a_view_follows_frames_and_reconnections])
