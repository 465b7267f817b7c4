#!/usr/bin/env python3
"""Time to first token and tokens a second: troupe's chat over /ws against `python -m llama_cpp.server`.

Both sides get the same model, the same number of threads, the same system text and the same user messages, temperature 0 and the
same limit of tokens.  Ten turns of one chat, a message of a second chat before the last one (--every: before each), so that
what a server keeps of a chat must outlive another one.  The sides take turns, round by round; the figures are medians.  The system text
is the same in all chats, as a character's card is: a server may gain by that, too.
Prints Markdown rows.  Run it by run.sh.
"""
import argparse
import asyncio
import http.client
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
NAME = "Mira"
PERSONA = (
    "Mira is the patient night-shift companion of a small seaside lighthouse museum. She speaks in short warm sentences, remembers "
    "what visitors tell her, loves tides, brass instruments and old ship logs, and never invents facts about the visitor. She keeps "
    "every answer under three sentences."
)
TURNS = [
    "Hello, I am Tomas. I came by the late ferry with my sister and we have a question about the brass telescope on the second floor.",
    "It was the one with the cracked lens. She thinks it belonged to a captain called Harlow, who sailed around the cape three times.",
    "We also brought our dog, called Biscuit. He is not allowed upstairs, is he? He usually sleeps under the table when we eat.",
    "My sister is a violin maker in Porto. She wonders whether salt air damages spruce and maple as quickly as it damages brass.",
    "Tomorrow we want to walk along the northern cliffs before the low tide. Which path is the safest when it has rained all night?",
    "Our grandfather kept a log of the weather for forty years. He wrote every line with a green pen, and he never missed a day.",
    "I would like to find the page about the storm of 1953. He said that the lamp went out for eleven minutes and nobody explained why.",
    "Do you think that the keeper fell asleep? Or was the oil frozen? My sister believes that somebody put out the lamp on purpose.",
    "We have sandwiches and two apples. Is there a place where we may sit inside? The wind is strong and Biscuit does not like it.",
    "Before we leave: what did I say my sister does for a living, and what is the name of our dog?",
]
OTHER = "Good evening. I am the one who repairs the fog horn; is the workshop open tonight?"


class Turn:
    """One reply as a client sees it, times in seconds since the message was sent."""

    def __init__(self):
        self.start = time.perf_counter()
        self.first = self.last = None
        self.text = ""
        self.pieces = 0
        self.tokens = None  # where the server says how many
        self.cached = None
        self.prompt = None  # its tokens, as the server counts them

    def piece(self, text):
        if not text:
            return
        now = time.perf_counter() - self.start
        self.first = now if self.first is None else self.first
        self.last = now
        self.text += text
        self.pieces += 1

    def rate(self):
        """Tokens a second after the first one."""
        n = self.tokens if self.tokens else self.pieces
        if n < 3 or self.last <= self.first:
            return None
        return (n - 1) / (self.last - self.first)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_http(port, path, process, limit=60):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"the server ended with {process.returncode}; its output is in {process.log}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit(f"no answer at {path} within {limit} s; the server's output is in {process.log}")


def start(command, folder, name, env=None):
    log = Path(folder) / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out)
    process.log = log
    return process


def stop(process):
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Peer:
    """llama_cpp.server, an OpenAI-compatible server; the client keeps the messages."""

    name = "llama_cpp.server"

    def __init__(self, args, folder):
        self.args = args
        self.counts = True
        self.port = free_port()
        self.process = start(
            [sys.executable, "-m", "llama_cpp.server", "--model", args.model, "--host", "127.0.0.1", "--port", str(self.port),
             "--n_ctx", str(args.context), "--n_threads", str(args.threads), "--n_threads_batch", str(args.threads)]
            + (["--cache", "true"] if args.peer_cache else []),
            folder, "peer")
        wait_http(self.port, "/v1/models", self.process)

    async def chat(self):
        return [{"role": "system", "content": self.args.system}]

    async def say(self, chat, text):
        chat.append({"role": "user", "content": text})
        turn = await asyncio.to_thread(self.post, chat)
        if self.counts:
            turn.prompt = await asyncio.to_thread(self.count, chat)
        chat.append({"role": "assistant", "content": turn.text})
        return turn

    def count(self, messages):
        """The prompt's tokens.  A streamed answer does not tell, so it is asked once more, while warming up only."""
        body = json.dumps({"messages": messages, "temperature": 0, "max_tokens": 1}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["usage"]["prompt_tokens"]

    def post(self, messages):
        body = json.dumps({"messages": messages, "stream": True, "temperature": 0, "max_tokens": self.args.max_tokens, "top_k": 1})
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        turn = Turn()
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"{self.name}: {answer.status} {answer.read(500)!r}")
        for line in answer:
            if line.startswith(b"data: {"):
                turn.piece(json.loads(line[6:])["choices"][0]["delta"].get("content"))
        connection.close()
        return turn

    async def close(self):
        stop(self.process)


class Troupe:
    """`troupe up`: a session, a character and one WebSocket; the server keeps the messages."""

    name = "troupe"

    def __init__(self, args, folder):
        self.args = args
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.socket = None
        self.refs = 0
        self.card = Path(folder) / "bench-mira.json"
        self.card.write_text(json.dumps({
            "spec": "chara_card_v2", "spec_version": "2.0",
            "data": {"name": NAME, "description": "", "personality": "", "scenario": "", "first_mes": "", "mes_example": "",
                     "creator_notes": "", "system_prompt": args.system, "post_history_instructions": "", "alternate_greetings": [],
                     "tags": [], "creator": "", "character_version": "1", "extensions": {}}}))
        env = dict(os.environ, TROUPE_LISTEN=f"127.0.0.1:{self.port}", TROUPE_ENGINE=f"llama:{args.model}",
                   TROUPE_TEMPERATURE="0", TROUPE_MAX_TOKENS=str(args.max_tokens), TROUPE_RATE_USER="0", TROUPE_RATE_ADDRESS="0",
                   TROUPE_CONTEXT_MESSAGES="40", TROUPE_CONTEXT_TOKENS=str(args.context),
                   TROUPE_THREADS=str(args.threads), TROUPE_LOG_LEVEL="warn", **dict(pair.split("=", 1) for pair in args.env))
        self.env = env
        self.folder = folder
        added = subprocess.run([args.troupe, "character", "import", str(self.card)], cwd=folder, env=env, capture_output=True, text=True)
        if added.returncode != 0:
            sys.exit(f"troupe character import: {added.stderr.strip()}")
        self.process = start([args.troupe, "up"], folder, "troupe", env)
        wait_http(self.port, "/readyz", self.process)
        self.character = self.find_character()

    def get(self, method, path, token=None):
        request = urllib.request.Request(self.origin + path, method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def find_character(self):
        self.token = self.get("POST", "/api/session")["token"]
        for character in self.get("GET", "/api/characters", self.token)["characters"]:
            if character["name"] == NAME:
                return character["id"]
        sys.exit("troupe: the character that was imported is not listed")

    async def connect(self):
        import websockets

        if self.socket is None:
            self.socket = await websockets.connect(f"ws://127.0.0.1:{self.port}/ws", subprotocols=["troupe.v1"], origin=self.origin,
                                                   additional_headers={"Authorization": f"Bearer {self.token}"}, max_size=None)

    async def send(self, **message):
        self.refs += 1
        message["ref"] = f"r{self.refs}"
        await self.socket.send(json.dumps(message))
        return message["ref"]

    async def receive(self):
        message = json.loads(await asyncio.wait_for(self.socket.recv(), 120))
        if message["type"] == "error":
            sys.exit(f"troupe: {message}")
        return message

    async def chat(self):
        await self.connect()
        ref = await self.send(type="open", character=self.character)
        while True:
            message = await self.receive()
            if message.get("ref") == ref:
                return message["chat"]

    async def say(self, chat, text):
        turn = Turn()
        ref = await self.send(type="send", chat=chat, id=secrets.token_hex(8), text=text, media=[])
        number = None
        while True:
            message = await self.receive()
            if message.get("ref") == ref:
                number = message["turn"]
            if message.get("chat") != chat or (number is not None and message.get("turn") != number):
                continue
            if message["type"] == "delta":
                turn.piece(message["text"])
            elif message["type"] == "reply":
                turn.text = message["text"]
                turn.tokens = message["usage"]["completion_tokens"]
                turn.cached = message["usage"]["cached_tokens"]
                turn.prompt = message["usage"]["prompt_tokens"]
                return turn

    async def close(self):
        if self.socket is not None:
            await self.socket.close()
        stop(self.process)


async def one_round(side, number, turns, every):
    """A chat of all turns, another chat before the last one (or before `every` one but the first); the Turns.  The number makes each round's chats new to the server."""
    chat, other = await side.chat(), await side.chat()
    done = []
    for i, text in enumerate(turns):
        if i > 0 and (every or i + 1 == len(turns)):
            await side.say(other, f"Night {number}.{i}. {OTHER}")
        done.append(await side.say(chat, f"Visit {number}. {text}"))
    return done


def median(values, scale=1.0):
    values = [v for v in values if v is not None]
    return f"{statistics.median(values) * scale:.0f}" if values else "-"


def report(args, sides, rounds):
    print(f"<!-- {time.strftime('%Y-%m-%d')}, {Path(args.model).name}, {args.threads} threads, {args.max_tokens} tokens a reply, "
          f"temperature 0, median of {args.rounds}, another chat between the turns -->")
    print("| | first token, turn 1 (ms) | first token, turn 10 (ms) | tokens/s, turn 1 | tokens/s, turn 10 |")
    print("|---|---|---|---|---|")
    for side in sides:
        first, last = [r[0] for r in rounds[side.name]], [r[-1] for r in rounds[side.name]]
        print(f"| {side.name} | {median([t.first for t in first], 1000)} | {median([t.first for t in last], 1000)} "
              f"| {median([t.rate() for t in first])} | {median([t.rate() for t in last])} |")


def compare(first):
    """That both sides were asked the same: the prompts' tokens, turn by turn, for as long as their replies were the same."""
    if len(first) < 2:
        return
    ours, peers = first[Troupe.name], first[Peer.name]
    same = next((i for i, (a, b) in enumerate(zip(ours, peers)) if a.text.strip() != b.text.strip()), len(ours))
    counts = [(a.prompt, b.prompt) for a, b in zip(ours, peers)]
    print(f"Prompt tokens ({Troupe.name}/{Peer.name}): " + " ".join(f"{a}/{b}" for a, b in counts)
          + f"; the replies are the same up to turn {same}")
    if any(a != b for a, b in counts[: same + 1]):
        sys.exit("the two sides were not asked the same")


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--troupe", default=str(TOP / "build/src/troupe"), help="the binary (default: build/src/troupe)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=len(TURNS), help="of a chat: fewer, to look at the first alone")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each side; 0: troupe follows the free cores")
    parser.add_argument("--only", choices=["peer", "troupe"], help="measure one side")
    parser.add_argument("--peer-cache", action="store_true", help="give the peer its prompt cache in memory, too")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="for troupe; may be repeated")
    parser.add_argument("--every", action="store_true", help="the other chat comes before each turn, not before the last alone")
    parser.add_argument("--verbose", action="store_true", help="every turn's figures on stderr")
    args = parser.parse_args()
    args.model = os.path.abspath(args.model)
    args.system = PERSONA
    kinds = [k for k in (Troupe, Peer) if args.only in (None, k.__name__.lower())]
    if Troupe in kinds and not os.access(args.troupe, os.X_OK):
        sys.exit(f"{args.troupe}: not there; build it first, name it with --troupe, or say --only peer")
    args.troupe = os.path.abspath(args.troupe)
    with tempfile.TemporaryDirectory(prefix="troupe-bench-") as folder:
        sides, rounds, first = [], {}, {}
        try:
            for kind in kinds:
                sides.append(kind(args, folder))
                rounds[kind.name] = []
            for n in range(args.rounds + 1):
                for side in sides:
                    turns = await one_round(side, n, TURNS[:args.turns], args.every)
                    if args.verbose:
                        for i, t in enumerate(turns):
                            print(f"round {n} {side.name} turn {i + 1}: first {t.first * 1000:.0f} ms, {t.pieces} pieces, "
                                  f"tokens {t.tokens} cached {t.cached}: {t.text[:60]!r}", file=sys.stderr)
                    if n > 0:  # the first is for warming up
                        rounds[side.name].append(turns)
                    else:
                        first[side.name] = turns
                        side.counts = False
        finally:
            for side in sides:
                await side.close()
        report(args, sides, rounds)
        compare(first)


asyncio.run(main())
