"""socketify, uWebSockets publish/subscribe.  Env: PORT, PING."""

import os

from socketify import App, AppListenOptions, CompressOptions

idle_s = 120 if os.environ.get("PING") == "1" else 0
options = {
    "compression": CompressOptions.DISABLED,
    "idle_timeout": idle_s,
    "send_pings_automatically": bool(idle_s),
    "max_payload_length": 1024 * 1024,  # the default is 16 KiB
    "max_backpressure": 16 * 1024 * 1024,  # above the default, 64 KiB, it drops published messages
}


def echo(ws, message, opcode):
    ws.send(message, opcode)


def join(ws):
    ws.subscribe("bench")


def publish(ws, message, opcode):
    app.publish("bench", message, opcode)


app = App()
app.ws("/echo", {**options, "message": echo})
app.ws("/room", {**options, "open": join, "message": publish})
app.listen(AppListenOptions(port=int(os.environ["PORT"]), host="127.0.0.1"), lambda config: None)
app.run()
