"""view.py: what one device holds of a chat: the server's frames applied as docs/protocol.md says, over its reconnections.  No I/O."""

PAGE = 50  # as many turns `opened` lists at most


def state(turn):
    """A listed turn as it is compared: its text, the finished variants, the chosen one."""
    done = {v["variant"]: (v["text"], v["finish"]) for v in turn["variants"] if v["finish"] is not None}
    return {"text": turn.get("text"), "variants": done, "chosen": turn.get("chosen", 0)}


class View:
    def __init__(self):
        self.turns = {}   # turn -> state(), for as long as it is not deleted
        self.floor = None  # older turns than that were never listed here

    def after(self):
        """The newest turn up to which every reply is held."""
        newest = None
        for turn in sorted(self.turns):
            held = self.turns[turn]
            if not held["variants"] and held["text"] is not None:
                break
            newest = turn
        return newest

    def opened(self, frame, after):
        """Returns the turns that were held and are listed no more."""
        listed = {t["turn"]: state(t) for t in frame["turns"]}
        first = min(listed, default="")
        if self.floor is None:
            self.floor = first if len(listed) >= PAGE else ""
        if after is not None:
            kept = {t for t in self.turns if t <= after}
        else:
            kept = {t for t in self.turns if t < first} if len(listed) >= PAGE else set()
        gone = [t for t in self.turns if t not in kept and t not in listed]
        if frame.get("more") and after is not None:  # those behind the page come with the next one
            gone = [t for t in gone if t <= max(listed, default=after)]
        self.turns = {**{t: self.turns[t] for t in kept}, **listed}
        return gone

    def event(self, frame):
        kind, turn = frame["type"], frame.get("turn")
        if kind in ("turn", "changed"):
            if turn["turn"] >= (self.floor or ""):
                self.turns[turn["turn"]] = state(turn)
        elif kind == "deleted":
            self.turns.pop(turn, None)
        elif kind in ("reply", "error") and turn in self.turns:
            held = self.turns[turn]
            variant = frame.get("variant", 0)
            if kind == "error":
                variant = frame.get("variant", max(held["variants"], default=-1) + 1)
            held["variants"][variant] = (frame.get("text", ""), frame.get("finish", "error"))
            if len(held["variants"]) == 1:
                held["chosen"] = variant  # a later one is chosen by `changed`

    def accepted(self, turn, text):
        self.turns.setdefault(turn, {"text": text, "variants": {}, "chosen": 0})

    def own(self, change):
        """What this device asked and heard `ok` of: nothing else tells it."""
        held = self.turns.get(change.turn)
        if change.kind == "delete":
            self.turns.pop(change.turn, None)
        elif held is not None and change.kind == "edit":
            held["text"] = change.value
        elif held is not None and change.kind == "choose":
            held["chosen"] = change.value

    def answered(self, turn, variant):
        held = self.turns.get(turn)
        return held is None or variant in held["variants"]

    def differs(self, listing):
        """[(turn, what)]: where it is not what the history lists."""
        listed = {t["turn"]: state(t) for t in listing if t["turn"] >= (self.floor or "")}
        found = [(t, "listed, and not held") for t in listed if t not in self.turns]
        found += [(t, "held, and not listed") for t in self.turns if t not in listed]
        for turn in sorted(set(listed) & set(self.turns)):
            a, b = self.turns[turn], listed[turn]
            for what in ("text", "variants") + (("chosen",) if b["variants"] else ()):
                if a[what] != b[what]:
                    found.append((turn, "%s is %r, and %r is listed" % (what, a[what], b[what])))
        return found
