"""chatter.py: one user's chat under fire, on one device or two: the first one sends, each edits, chooses, regenerates and deletes; each is
cut, reconnects, resumes with `after` and `since`, and asks again what was not answered.  What is seen goes into ledger.py."""
import asyncio
import os
import sys
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import websockets  # noqa: E402
from ledger import Change, Ledger, check  # noqa: E402
from troupe import Client, Refused  # noqa: E402
from view import View  # noqa: E402

CUT = (ConnectionError, OSError, TimeoutError, asyncio.TimeoutError, websockets.WebSocketException)
WORDS = "tide lamp brass gull öl ship 鐘 rope storm candle 🌊 harbour map".split()
AGAIN = ("overloaded", "internal")  # refusals after which the same is asked again
VARIANTS = 4                        # of a turn at most
NEWEST = 25                         # turns among which one is drawn to be changed
LATE = 0.1                          # of the deletions: of turns whose reply is still to come


class Device:
    """One device of a chat: one connection after the other."""

    def __init__(self, chat, n):
        self.chat, self.n, self.rng = chat, n, chat.rng
        self.view, self.since, self.told_since, self.asked_after = View(), None, None, None
        self.client, self.conn = None, (n, 0)
        self.change = None  # that is not answered yet, or whose reply is still to come
        self.idle = asyncio.Event()

    # ---- what comes in

    def on_frame(self, frame):
        for f in self.chat.planter.frames(self.n, frame) if self.chat.planter else [frame]:
            self.on_event(f)

    def on_event(self, frame):
        l = self.chat.ledger
        if frame["type"] == "opened":
            if l is None:
                l = self.chat.ledger = Ledger(frame["chat"], frame["character"]["name"], devices=len(self.chat.devices))
            l.opened(self.conn, frame, self.view.opened(frame, self.asked_after))
            self.told_since = frame["change"]
        elif l is not None and frame["type"] != "accepted" and (frame.get("chat") or frame["turn"]["chat"]) == l.chat:
            l.event(self.conn, frame)
            self.view.event(frame)
        self.look()

    def look(self):
        """What waited for an answer and has it by now."""
        waiting = self.chat.unanswered
        for key in [k for k, device in waiting.items() if device is self and self.view.answered(*k)]:
            del waiting[key]
        c = self.change
        if c is not None and c.answer and (c.kind != "regenerate" or not c.done or self.is_settled(c)):
            self.chat.busy.discard(c.turn)
            self.change = None

    def is_settled(self, c):
        """The variant that was asked for is there, and known to be the chosen one."""
        held = self.view.turns.get(c.turn)
        return held is None or (c.value in held["variants"] and (
            held["chosen"] == c.value or any(other.unsure for other in self.chat.ledger.of(c.turn, "choose"))))

    # ---- connecting

    async def connect(self):
        chat = self.chat
        self.conn = (self.n, self.conn[1] + 1)
        self.client = Client(chat.server, chat.token, self.on_frame)
        await self.client.connect()
        if chat.ledger is None:
            await self.client.open("mira", id=chat.open_id)
        while True:
            fields = {}
            self.asked_after = self.view.after()
            if self.asked_after is not None:
                fields["after"] = self.asked_after
            if self.since is not None:
                fields["since"] = self.since
            if not (await self.client.open(chat=chat.ledger.chat, **fields)).get("more"):
                break
        await self.client.ask("ping")  # what `since` asked for has come before its answer
        self.since = self.told_since

    # ---- sending

    async def send(self, cid, text):
        chat = self.chat

        def then(frame):
            if frame["type"] != "accepted":
                return
            turn = frame["turn"]
            chat.ledger.again.append((cid, turn))
            if cid not in chat.ledger.accepted:
                chat.ledger.accepted[cid] = turn
                self.view.accepted(turn, text)
                if not self.view.answered(turn, 0):
                    chat.unanswered[(turn, 0)] = self
            chat.outbox = [o for o in chat.outbox if o[0] != cid]

        await self.client.ask("send", then=then, chat=chat.ledger.chat, id=cid, text=text)

    async def send_some(self):
        chat = self.chat
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            cid = str(uuid.uuid4())
            text = "%d/%d %s" % (chat.n, len(chat.ledger.sent), " ".join(self.rng.choices(WORDS, k=self.rng.randint(1, 9))))
            chat.ledger.sent.append((cid, text))
            chat.outbox.append((cid, text))
        await asyncio.gather(*(self.send(*o) for o in list(chat.outbox)))

    # ---- changing

    def draw(self):
        """A change of one of the newest turns; None: there is none to change."""
        l, rng = self.chat.ledger, self.rng
        mine = [t for t in sorted(self.view.turns)[-NEWEST:] if t not in self.chat.busy and self.view.turns[t]["text"] is not None]
        done = [t for t in mine if 0 in self.view.turns[t]["variants"]]
        late = [t for t in mine if t not in done and t in l.accepted.values()]
        if late and not self.chat.planter and rng.random() < LATE:
            return Change(self.n, "delete", rng.choice(late), None)
        if not done:
            return None
        turn = rng.choice(done)
        variants = sorted(self.view.turns[turn]["variants"])
        others = [v for v in variants if v != self.view.turns[turn]["chosen"]]  # the same again changes nothing, and is told to nobody
        kind = rng.choice(["edit"] * 4 + ["delete"] + ["regenerate"] * 4 * (len(variants) < VARIANTS) + ["choose"] * 4 * bool(others))
        value = {"edit": "edit %d/%d %s" % (self.chat.n, len(l.changes), " ".join(rng.choices(WORDS, k=3))), "regenerate": len(variants),
                 "choose": rng.choice(others or variants), "delete": None}[kind]
        if kind == "delete" and self.chat.planter and self.chat.planter.turn == turn:
            return None  # what is planted there would go with it
        return Change(self.n, kind, turn, value)

    async def step_change(self):
        """Ask (again) for the change under way."""
        chat, c = self.chat, self.change
        if c is None or c.answer:
            return
        fields = {"edit": {"text": c.value}, "choose": {"variant": c.value}, "regenerate": {"variant": c.value}, "delete": {}}[c.kind]

        def then(frame):
            if c.answer:
                return
            if frame["type"] == "error":
                if frame["code"] in AGAIN:
                    return
                # it was done by the try that was not answered
                chat.ledger.answer(c, "ok" if c.unsure and c.kind == "delete" and frame["code"] == "not_found" else frame["code"])
            else:
                chat.ledger.answer(c, "ok")
            if c.done:
                self.view.own(c)
                if c.kind == "regenerate" and not self.view.answered(c.turn, c.value):
                    chat.unanswered[(c.turn, c.value)] = self
            self.look()

        try:
            await self.client.ask(c.kind, then=then, turn=c.turn, **fields)
        except Refused as e:
            if e.code in AGAIN:
                c.unsure = True
                raise
        except BaseException:
            c.unsure = c.unsure or not c.answer
            raise

    # ---- life

    def is_done(self):
        chat = self.chat
        return chat.goal.is_set() and self.change is None and not (self.n == 0 and chat.outbox) and \
            not any(device is self for device in chat.unanswered.values())

    async def session(self):
        """One connection's life; ends when it is cut, or the run is over."""
        chat = self.chat
        await self.connect()
        if self.n == 0:
            for o in list(chat.outbox):
                await self.send(*o)
        while not chat.over.is_set():
            await self.step_change()
            if not chat.goal.is_set():
                if self.n == 0 and len(chat.unanswered) < 3:
                    await self.send_some()
                if self.change is None and self.rng.random() < chat.rate:
                    self.change = self.draw()
                    if self.change is not None:
                        chat.busy.add(self.change.turn)
                        chat.ledger.ask(self.change)
                        continue
            elif self.is_done():
                self.idle.set()
            over = asyncio.ensure_future(chat.over.wait()) if self.idle.is_set() else None
            await asyncio.wait({self.client.reader} | ({over} if over else set()), timeout=self.rng.uniform(0, chat.pause),
                               return_when=asyncio.FIRST_COMPLETED)  # it ends where it is cut
            if over:
                over.cancel()
            if self.client.closed is not None:
                raise ConnectionError("closed")

    async def run(self):
        chat = self.chat
        while self.n > 0 and chat.ledger is None:
            await asyncio.sleep(0.05)
        while True:
            try:
                await self.session()
                await self.client.close()
                return
            except Refused as e:
                if e.code not in AGAIN:
                    raise
                chat.refused.append(e.code)
                if chat.ledger is not None:
                    chat.ledger.refused = True
                await asyncio.sleep((e.frame.get("retry_after_ms") or 200) / 1000)
            except CUT:
                await asyncio.sleep(self.rng.uniform(0.02, 0.2))
            if self.client is not None:
                try:
                    await self.client.close()
                except CUT:
                    pass


class Chatter:
    """rate: how likely a device changes something between two waits of at most `pause` seconds."""

    def __init__(self, server, rng, n, pause, planter=None, devices=1, rate=0.0):
        self.server, self.rng, self.n, self.pause, self.planter, self.rate = server, rng, n, pause, planter, rate
        self.token = server.session()["token"]
        self.ledger = None
        self.open_id = str(uuid.uuid4())
        self.goal = None          # asyncio.Event: no new messages
        self.over = asyncio.Event()
        self.outbox = []          # (client id, text) not yet accepted
        self.unanswered = {}      # (turn, variant) -> the device that waits
        self.busy = set()         # turns with a change under way: one at a time
        self.refused = []         # codes of refusals
        self.devices = [Device(self, d) for d in range(devices)]

    async def run(self):
        await asyncio.gather(*(d.run() for d in self.devices))

    async def idle(self):
        await asyncio.gather(*(d.idle.wait() for d in self.devices))

    async def list_all(self):
        for left in range(20, -1, -1):  # a gateway may only just be starting again
            try:
                return await self.list_once()
            except CUT:
                if left == 0:
                    raise
                await asyncio.sleep(0.5)

    async def list_once(self):
        async with Client(self.server, self.token) as c:
            await c.open(chat=self.ledger.chat)
            before, turns = {}, []
            while True:
                page = (await c.ask("history", chat=self.ledger.chat, limit=200, **before))["turns"]
                if not page:
                    break
                turns = page + turns
                before = {"before": page[0]["turn"]}
        self.ledger.differs = [(d.n, *what) for d in self.devices for what in d.view.differs(turns)]
        self.ledger.listing = self.planter.listing(self.ledger, turns) if self.planter else turns

    async def settle(self, seconds):
        """The history is read until every device holds what it lists, for so long at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        await self.list_all()
        while self.ledger.differs and loop.time() < end:
            await asyncio.sleep(0.3)
            await self.list_all()


async def finish(chatters, seconds, settle=30):
    """All are told to stop sending; what is under way gets its answers; then the histories are read.  Returns check()."""
    chatters[0].goal.set()
    idle = {asyncio.ensure_future(c.idle()): c for c in chatters}
    _, late = await asyncio.wait(idle, timeout=seconds)
    for c in chatters:
        if c.task.done():
            c.task.result()
    for task in late:
        c = idle[task]
        if not c.planter:
            print("  unanswered at the end in %s: %s, not accepted: %d, not done: %s" % (
                c.ledger.chat, sorted(c.unanswered), len(c.outbox), [d.change for d in c.devices if d.change]))
        task.cancel()
    await asyncio.gather(*(c.settle(settle if not c.planter else min(settle, 2)) for c in chatters))
    for c in chatters:
        c.over.set()
    _, late = await asyncio.wait([c.task for c in chatters], timeout=10)
    for task in late:
        task.cancel()
    await asyncio.gather(*(c.task for c in chatters), return_exceptions=True)
    return check([c.ledger for c in chatters])
