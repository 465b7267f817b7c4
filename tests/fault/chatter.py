"""chatter.py: one user's chat under fire: sends, is cut, reconnects, resumes with `after`, sends again what was not accepted;
and Planter, which breaks a promise on the way in, so that the checker can be checked."""
import asyncio
import os
import sys
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import websockets  # noqa: E402
from ledger import Ledger, check  # noqa: E402
from troupe import Client, Refused  # noqa: E402

CUT = (ConnectionError, OSError, TimeoutError, asyncio.TimeoutError, websockets.WebSocketException)
WORDS = "tide lamp brass gull öl ship 鐘 rope storm candle 🌊 harbour map".split()


class Planter:
    """Breaks one promise on the way in, once: what the client sees is not what the server sent."""

    def __init__(self, sort):
        self.sort, self.held, self.done, self.turn, self.n = sort, None, False, None, 0

    def frames(self, frame):
        kind = frame["type"]
        if self.sort == "lost":  # a reply that is nowhere, neither as an event nor in a listing
            if kind == "reply" and self.turn is None:
                self.turn = frame["turn"]
            if self.turn and frame.get("turn") == self.turn and kind in ("reply", "delta"):
                return []
            for turn in frame.get("turns", []):
                if turn["turn"] == self.turn:
                    turn["variants"] = []
        elif self.sort == "doubled" and kind == "reply" and not self.done:
            self.done = True
            return [frame, dict(frame)]
        elif self.sort == "disorder" and kind == "reply" and not self.done:
            if self.held is None:
                self.held = frame
                return []
            self.done = True
            return [frame, self.held]
        elif self.sort == "gaps" and kind == "delta" and frame["offset"] > 0 and not self.done:
            self.done = True
            return []
        return [frame]


class PlantedClient(Client):
    planter = None

    def take(self, frame):
        for f in self.planter.frames(frame) if self.planter else [frame]:
            super().take(f)


class Chatter:
    def __init__(self, server, rng, n, pause, planter=None):
        self.server, self.rng, self.n, self.pause = server, rng, n, pause
        self.planter = planter
        self.token = server.session()["token"]
        self.ledger = None
        self.open_id = str(uuid.uuid4())
        self.conn = 0
        self.client = None
        self.after = None
        self.goal = None          # asyncio.Event: no new messages
        self.outbox = []          # (client id, text) not yet accepted
        self.unanswered = set()
        self.refused = []         # codes of refusals

    def on_event(self, frame):
        l = self.ledger
        if frame["type"] == "opened":
            if l is None:
                l = self.ledger = Ledger(frame["chat"], frame["character"]["name"])
            l.opened(self.conn, frame)
            for turn in frame["turns"]:
                if any(v["finish"] is not None for v in turn["variants"]):
                    self.unanswered.discard(turn["turn"])
        elif l is not None and frame.get("chat") == l.chat:
            l.event(self.conn, frame)
            if frame["type"] in ("reply", "error"):
                self.unanswered.discard(frame.get("turn"))

    async def connect(self):
        self.conn += 1
        self.client = PlantedClient(self.server, self.token, self.on_event)
        self.client.planter = self.planter
        await self.client.connect()
        if self.ledger is None:
            await self.client.open("mira", id=self.open_id)
            return
        while True:
            fields = {"after": self.after} if self.after else {}
            opened = await self.client.open(chat=self.ledger.chat, **fields)
            if not opened.get("more"):
                return
            self.move_after(opened["turns"])

    def move_after(self, turns):
        """`after` = the newest turn up to which every reply is held."""
        answered = {r[1] for r in self.ledger.replies} | {e[1] for e in self.ledger.errors}
        for turn in sorted(set(self.ledger.accepted.values()) | {t["turn"] for t in turns}):
            if turn not in answered:
                break
            self.after = turn

    async def send(self, cid, text):
        frame = await self.client.ask("send", chat=self.ledger.chat, id=cid, text=text)
        turn = frame["turn"]
        self.ledger.again.append((cid, turn))
        if cid not in self.ledger.accepted:
            self.ledger.accepted[cid] = turn
            if not any(r[1] == turn for r in self.ledger.replies):
                self.unanswered.add(turn)
        self.outbox = [o for o in self.outbox if o[0] != cid]

    async def session(self):
        """One connection's life; ends when it is cut or all is done."""
        await self.connect()
        for cid, text in list(self.outbox):
            await self.send(cid, text)
        while not (self.goal.is_set() and not self.outbox and not self.unanswered):
            if not self.goal.is_set() and len(self.unanswered) < 3:
                for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
                    cid = str(uuid.uuid4())
                    text = "%d/%d %s" % (self.n, len(self.ledger.sent), " ".join(self.rng.choices(WORDS, k=self.rng.randint(1, 9))))
                    self.ledger.sent.append((cid, text))
                    self.outbox.append((cid, text))
                await asyncio.gather(*(self.send(*o) for o in list(self.outbox)))
            self.move_after([])
            await asyncio.wait({self.client.reader}, timeout=self.rng.uniform(0, self.pause))  # it ends where it is cut
            if self.client.closed is not None:
                raise ConnectionError("closed")

    async def run(self):
        while True:
            try:
                await self.session()
                await self.client.close()
                return
            except Refused as e:
                if e.code not in ("overloaded", "internal"):
                    raise
                self.refused.append(e.code)
                if self.ledger is not None:
                    self.ledger.refused = True
                await asyncio.sleep((e.frame.get("retry_after_ms") or 200) / 1000)
            except CUT:
                await asyncio.sleep(self.rng.uniform(0.02, 0.2))
            if self.client is not None:
                try:
                    await self.client.close()
                except CUT:
                    pass

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
        if self.planter:
            self.planter.frames({"type": "listing", "turns": turns})
        self.ledger.listing = turns


async def finish(chatters, seconds):
    """All are told to stop sending; what is under way gets its answers; then the histories are read.  Returns check()."""
    running = [c.task for c in chatters]
    chatters[0].goal.set()
    done, late = await asyncio.wait(running, timeout=seconds)
    for t in done:
        t.result()
    for c in chatters:
        if c.task in late:
            print("  unanswered at the end in %s: %s, not accepted: %d" % (c.ledger.chat, sorted(c.unanswered), len(c.outbox)))
            c.task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for c in chatters:
        await c.list_all()
    return check([c.ledger for c in chatters])
