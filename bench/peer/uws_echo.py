"""The peer for connections: uWebSockets, by PyPI's socketify, an echo server as its README shows it.  Takes its port."""
import sys

from socketify import App

app = App()
app.ws("/*", {"compression": 0, "idle_timeout": 0, "max_payload_length": 131072,
              "message": lambda ws, message, opcode: ws.send(message, opcode)})
app.listen({"host": "127.0.0.1", "port": int(sys.argv[1])}, lambda config: print(config.port, flush=True))
app.run()
