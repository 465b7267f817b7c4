"""planter.py: breaks one promise of a chat on the way in: what its devices see is not what the server sent, so that the checker can be
checked.  PLANTS: what is broken -> under which sort the checker must count it."""
import copy

PLANTS = {
    "a reply is lost": "lost",
    "a reply comes twice": "doubled",
    "a reply comes late": "disorder",
    "a delta is missing": "gaps",
    "a `changed` is lost": "untold",
    "a `deleted` is lost": "untold",
    "a variant's reply is lost": "untold",
    "a `turn` comes twice": "doubled",
    "an older text comes behind a newer one": "disorder",
    "a deleted turn is told of again": "disorder",
    "another text is listed": "wrong",
    "another variant is the chosen one": "wrong",
    "a deleted turn is listed": "wrong",
    "a variant too many is listed": "doubled",
    "a variant is not listed": "lost",
}


class Planter:
    def __init__(self, sort):
        self.sort, self.done, self.turn, self.held, self.seen = sort, False, None, None, {}
        self.rule = {
            "a reply is lost": self.lose_reply, "a reply comes twice": self.twice("reply"), "a reply comes late": self.late,
            "a delta is missing": self.lose_delta, "a `changed` is lost": self.lose_changed, "a `deleted` is lost": self.lose_deleted,
            "a variant's reply is lost": self.lose_variant, "a `turn` comes twice": self.twice("turn"),
            "an older text comes behind a newer one": self.older_text, "a deleted turn is told of again": self.told_again,
        }.get(sort)

    def frames(self, device, frame):
        """What comes in place of the frame; a change's event is broken at the second device."""
        return self.rule(device, frame) if self.rule else [frame]

    def lose_reply(self, device, frame):  # it is nowhere, neither as an event nor in a listing
        if frame["type"] == "reply" and self.turn is None and frame["variant"] == 0:
            self.turn, self.done = frame["turn"], True
        if self.turn and frame.get("turn") == self.turn and frame["type"] in ("reply", "delta"):
            return []
        return [frame]

    def twice(self, kind):
        def rule(device, frame):
            if frame["type"] != kind or self.done:
                return [frame]
            self.done = True
            return [frame, dict(frame)]
        return rule

    def late(self, device, frame):
        if device != 0 or frame["type"] != "reply" or frame["variant"] > 0 or self.done:
            return [frame]
        if self.held is None:
            self.held = frame
            return []
        self.done = True
        return [frame, self.held]

    def lose_delta(self, device, frame):
        if frame["type"] == "delta" and frame["offset"] > 0 and not self.done:
            self.done = True
            return []
        return [frame]

    def lose_changed(self, device, frame):
        if device == 1 and frame["type"] == "changed" and self.turn in (None, frame["turn"]["turn"]):
            self.turn, self.done = frame["turn"]["turn"], True
            return []
        return [] if frame["type"] == "deleted" and frame["turn"] == self.turn else [frame]

    def lose_deleted(self, device, frame):
        if device != 1 or frame["type"] != "deleted" or self.done:
            return [frame]
        self.done = True
        return []

    def lose_variant(self, device, frame):
        if device == 1 and frame["type"] == "reply" and frame["variant"] > 0 and self.turn in (None, frame["turn"]):
            self.turn, self.done = frame["turn"], True
            return []
        return [frame]

    def older_text(self, device, frame):
        if device != 1 or frame["type"] != "changed" or self.done:
            return [frame]
        texts = self.seen.setdefault(frame["turn"]["turn"], [])
        if not any(f["turn"]["text"] == frame["turn"]["text"] for f in texts):
            texts.append(frame)
        edits = [f for f in texts if f["turn"]["text"].startswith("edit ")]
        if len(edits) < 2:
            return [frame]
        self.done = True
        return [frame, edits[0]]

    def told_again(self, device, frame):
        if frame["type"] == "changed" and device == 1:
            self.seen[frame["turn"]["turn"]] = frame
        if device != 1 or frame["type"] != "deleted" or self.done or frame["turn"] not in self.seen:
            return [frame]
        self.done = True
        return [frame, self.seen[frame["turn"]]]

    # ---- what the history lists

    def ready(self, ledger):
        """Something has happened that it can break, or did."""
        return self.done if self.rule else self.sort not in PLANTS or self.victim(ledger) is not None

    def victim(self, l):
        gone = {c.turn for c in l.changes if c.kind == "delete"}
        of = lambda kind: [c.turn for c in l.changes if c.kind == kind and c.done and (kind == "delete" or c.turn not in gone)]  # noqa: E731
        return {"another text is listed": of("edit"), "another variant is the chosen one": of("regenerate"), "a deleted turn is listed": of("delete"),
                "a variant too many is listed": of("edit") + of("regenerate"), "a variant is not listed": of("regenerate")}[self.sort][-1:] or None

    def listing(self, ledger, turns):
        if self.sort == "a reply is lost":
            for t in turns:
                if t["turn"] == self.turn:
                    t["variants"] = []
        if self.rule or self.sort not in PLANTS or self.victim(ledger) is None:
            return turns
        turn = self.victim(ledger)[0]
        entry = next((t for t in turns if t["turn"] == turn), None)
        if self.sort == "another text is listed":
            entry["text"] = "what nobody wrote"
        elif self.sort == "another variant is the chosen one":
            entry["chosen"] = 90
        elif self.sort == "a deleted turn is listed":
            turns = sorted(turns + [dict(turns[-1], turn=turn, text="deleted")], key=lambda t: t["turn"])
        elif self.sort == "a variant too many is listed":
            entry["variants"].append(dict(copy.deepcopy(entry["variants"][-1]), variant=90))
        else:
            entry["variants"] = [v for v in entry["variants"] if v["variant"] == 0]
        return turns
