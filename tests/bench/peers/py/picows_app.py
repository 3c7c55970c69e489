"""picows on uvloop.  Env: PORT, PING."""

import logging
import os

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

logging.getLogger("picows").setLevel(logging.CRITICAL)
room = set()


def close(transport, frame):
    transport.send_close(frame.get_close_code(), frame.get_close_message())
    transport.disconnect()


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            close(transport, frame)


class Room(WSListener):
    def on_ws_connected(self, transport):
        room.add(transport)

    def on_ws_disconnected(self, transport):
        room.discard(transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            data = frame.get_payload_as_bytes()
            for member in room:
                member.send(WSMsgType.TEXT, data)
        elif frame.msg_type == WSMsgType.CLOSE:
            close(transport, frame)


async def main():
    ping = {"enable_auto_ping": True, "auto_ping_idle_timeout": 25} if os.environ.get("PING") == "1" else {}
    listeners = {b"/echo": Echo, b"/room": Room}
    server = await ws_create_server(
        lambda request: listeners[bytes(request.path)](), "127.0.0.1", int(os.environ["PORT"]), backlog=2048, **ping
    )
    await server.serve_forever()


uvloop.run(main())
