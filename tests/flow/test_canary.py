"""Contract 3.6: a word that goes through a chat in every way is then searched for in every file of the data folder and in
the logs, at debug level: in the open, in base64, in UTF-16 and percent-encoded.  The search must find a planted one."""
import asyncio
import base64
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from canary import WORD, search  # noqa: E402
from troupe import Client, Server, run  # noqa: E402


async def canary():
    # a slow engine, so that words rest in the queues when the process is killed
    s = Server("stub:?delay_ms=400&gap_ms=5&fail_word=%s-fails" % WORD).start()
    try:
        c = await Client(s).connect()
        chat = (await c.open("mira", id="open " + WORD))["chat"]
        turn = await c.say(chat, "I am %s, mail %s@example.org" % (WORD, WORD), id="id " + WORD)
        await c.reply(turn)
        await c.ask("regenerate", turn=turn)
        await c.reply(turn, 1)
        await c.ask("edit", turn=turn, text="edited %s" % WORD)
        failing = await c.say(chat, "%s-fails" % WORD)
        await c.reply(failing, timeout=60)
        try:
            await c.ask("send", chat=chat, id="x", text=WORD * 2000)
        except Exception as e:
            assert "too_large" in str(e)
        await c.ws.send('{"type":"%s","ref":"%s"}' % (WORD, WORD))
        await c.until(lambda e: e["type"] == "error" and e.get("ref") == WORD)
        s.http("GET", "/api/characters/" + WORD)
        for n in range(5):
            await c.say(chat, "%s waits %d" % (WORD, n))
        s.kill()  # with words in the queues, and in the write-ahead logs
        assert os.path.getsize(s.log_path) > 0
        found = search(s.folder, WORD)
        assert not found, found
        await s.start_async()
        async with Client(s, c.token) as back:
            await back.open(chat=chat)
            await asyncio.sleep(4)
            assert WORD in str((await back.ask("history", chat=chat))["turns"]), "the words are there for their user"
        assert s.stop() == 0
        found = search(s.folder, WORD)
        assert not found, found
        n = sum(len(files) for _, _, files in os.walk(s.folder))
        print("   searched %d files" % n)
        with open(os.path.join(s.folder, "data", "planted"), "wb") as f:
            f.write(b"..." + base64.b64encode(b"a" + WORD.encode() + b"b"))
        assert search(s.folder, WORD), "a planted word was not found"
    finally:
        s.remove()


run([canary])
