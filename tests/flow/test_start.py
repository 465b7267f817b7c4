"""Starting and stopping: clear lines for what is wrong, a lock, the key, the drain, the command line."""
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from troupe import TOP, Client, Server, run  # noqa: E402


def refused(*parts, engine="stub:", prepare=None, **env):
    s = Server(engine, **env)
    try:
        if prepare:
            prepare(s)
        got = s.command("up")
        assert got.returncode in (1, 2), got
        lines = [l for l in got.stderr.splitlines() if l.startswith("troupe")]
        assert len(lines) == 1, got.stderr
        for part in parts:
            assert part in lines[0], (part, lines[0])
        print("   " + lines[0][:180])
    finally:
        s.remove()


def write(s, name, data):
    path = os.path.join(s.folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)
    return path


def model_missing():
    refused("nothing.gguf", "no such file", "TROUPE_ENGINE", engine="llama:nothing.gguf")


def model_broken():
    refused("broken.gguf", engine="llama:broken.gguf", prepare=lambda s: write(s, "broken.gguf", b"this is no model" * 100))


def model_cut():
    whole = os.path.join(TOP, ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf")

    def cut(s):
        with open(whole, "rb") as f:
            write(s, "cut.gguf", f.read(5_000_000))
    refused("cut.gguf", engine="llama:cut.gguf", prepare=cut)


def engine_unknown():
    refused("TROUPE_ENGINE", "magic:", engine="magic:wand")


def port_taken():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        refused("TROUPE_LISTEN", "taken", TROUPE_LISTEN="127.0.0.1:%d" % s.getsockname()[1])


def listen_nonsense():
    refused("TROUPE_LISTEN", TROUPE_LISTEN="nowhere")


def folder_unwritable():
    if os.getuid() == 0:  # root may write anywhere: a file stands where the folder should be
        refused("TROUPE_BROKER", "data", prepare=lambda s: write(s, "data", b"a file"))
    else:
        refused("TROUPE_BROKER", "data", prepare=lambda s: os.chmod(s.folder, 0o500))


def unknown_key():
    refused("TROUPE_LISTN", "TROUPE_LISTEN", TROUPE_LISTN="x")


def bad_number():
    refused("TROUPE_TEXT_MAX", "whole number", TROUPE_TEXT_MAX="many")


def second_instance():
    with Server() as s:
        s.env["TROUPE_LISTEN"] = "127.0.0.1:0"
        got = s.command("up")
        assert got.returncode == 1 and "another troupe is running" in got.stderr, got


def other_master_key():
    s = Server()
    try:
        s.start()
        assert s.stop() == 0
        path = os.path.join(s.folder, "data/master.key")
        assert os.stat(path).st_mode & 0o777 == 0o600
        os.rename(path, path + ".away")
        got = s.command("up")
        assert got.returncode == 1 and "no master key" in got.stderr, got
        other = Server()
        other.start()
        other.stop()
        os.rename(os.path.join(other.folder, "data/master.key"), path)
        other.remove()
        got = s.command("up")
        assert got.returncode == 1 and "not the master key" in got.stderr, got
        os.chmod(path + ".away", 0o644)
        os.rename(path + ".away", path)
        got = s.command("up")
        assert got.returncode == 1 and "chmod 600" in got.stderr, got
    finally:
        s.remove()


def command_line():
    s = Server()
    try:
        for args, code in ((["--help"], 0), (["up", "--help"], 0), (["character", "--help"], 0), ([], 2), (["dance"], 2),
                           (["up", "now"], 2), (["character"], 2), (["character", "dance"], 2), (["character", "show"], 2),
                           (["character", "show", "nobody"], 1), (["character", "list"], 0), (["env"], 0), (["--version"], 0)):
            got = s.command(*args)
            assert got.returncode == code, (args, got)
        assert "mira" in s.command("character", "list").stdout
    finally:
        s.remove()


def characters():
    """What import takes, export gives back."""
    s = Server()
    try:
        card = {"spec": "chara_card_v2", "spec_version": "2.0",
                "data": {"name": "Zoë", "description": "A diver.", "personality": "calm", "scenario": "", "first_mes": "Hi {{user}}.",
                         "mes_example": "", "creator_notes": "", "system_prompt": "", "post_history_instructions": "",
                         "alternate_greetings": ["Ahoy."], "tags": ["sea"], "creator": "us", "character_version": "1",
                         "extensions": {"else": {"kept": [1, 2.5, None]}}, "unknown": "kept too"}}
        path = write(s, "zoe.json", json.dumps(card).encode())
        got = s.command("character", "import", path, "--id", "zoe")
        assert (got.returncode, got.stdout) == (0, "zoe\n"), got
        assert s.command("character", "import", path, "--id", "zoe").returncode == 0  # the same again: nothing to do
        card["data"]["tags"].append("deep")
        path = write(s, "zoe.json", json.dumps(card).encode())
        got = s.command("character", "import", path, "--id", "zoe")
        assert got.returncode == 1 and "--replace" in got.stderr, got
        assert s.command("character", "import", path, "--id", "zoe", "--replace").returncode == 0
        back = json.loads(s.command("character", "export", "zoe").stdout)
        for k, v in card["data"].items():
            assert back["data"][k] == v, (k, v, back["data"].get(k))
        assert "A diver." in s.command("character", "show", "zoe").stdout
        svg = write(s, "evil.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
        got = s.command("character", "import", path, "--id", "zoe2", "--avatar", svg)
        assert got.returncode == 1 and "avatar" in got.stderr, got
        for text, part in ((b"{}", "name"), (b"[", "JSON"), (b'{"spec":"chara_card_v2","data":{"name":5}}', "name")):
            got = s.command("character", "import", write(s, "bad.json", text))
            assert got.returncode == 1 and part in got.stderr, got
        assert s.command("character", "import", "missing.json").returncode == 1
        assert s.command("character", "remove", "zoe").returncode == 0
        assert s.command("character", "remove", "zoe").returncode == 1
    finally:
        s.remove()


async def drain():
    """SIGTERM: what is under way is finished, clients are told to come back (1012), exit 0; nothing is lost."""
    s = Server("stub:?delay_ms=300&gap_ms=20").start()
    try:
        async with Client(s) as c:
            chat = (await c.open("mira"))["chat"]
            turn = await c.say(chat, "before the drain")
            s.proc.send_signal(signal.SIGTERM)
            await c.reader
            assert c.closed == 1012, c.closed
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, s.proc.wait, 25) == 0
        s.kill()
        await s.start_async()
        async with Client(s, c.token) as c2:
            opened = await c2.open(chat=chat)
            mine = [t for t in opened["turns"] if t["turn"] == turn]
            if mine[0]["variants"] and mine[0]["variants"][-1]["finish"]:
                assert mine[0]["variants"][0]["text"] == "Mira heard: before the drain"
            else:
                assert (await c2.reply(turn))["text"] == "Mira heard: before the drain"
    finally:
        s.remove()


def second_start_is_quick():
    model = os.path.join(TOP, ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    s = Server("llama:" + model)
    try:
        s.start()
        s.stop()
        start = time.monotonic()
        s.start()
        seconds = time.monotonic() - start
        print("   ready in %.2f s" % seconds)
        assert seconds < 3 * float(os.environ.get("TROUPE_TEST_SLOWNESS", "1"))
        assert s.stop() == 0
    finally:
        s.remove()


run([model_missing, model_broken, model_cut, engine_unknown, port_taken, listen_nonsense, folder_unwritable, unknown_key, bad_number,
     second_instance, other_master_key, command_line, characters, drain, second_start_is_quick])
