"""websockets.sync.server (thread per connection).  Env: PORT, PING,
BROADCAST = loop (default: loop over the connections under a lock) | helper (library's broadcast())."""

import logging
import os
import threading
from contextlib import suppress

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import broadcast as ws_broadcast
from websockets.sync.server import serve

logging.getLogger("websockets").setLevel(logging.CRITICAL)
room = set()
room_lock = threading.Lock()


def broadcast_loop(message):
    with room_lock:
        for member in room:
            with suppress(ConnectionClosed):
                member.send(message)


def broadcast_helper(message):
    with room_lock:
        members = list(room)
    ws_broadcast(members, message)


broadcast = broadcast_helper if os.environ.get("BROADCAST") == "helper" else broadcast_loop


def handler(ws):
    path = ws.request.path
    if path == "/echo":
        for message in ws:
            ws.send(message)
    elif path == "/room":
        with room_lock:
            room.add(ws)
        try:
            for message in ws:
                broadcast(message)
        finally:
            with room_lock:
                room.discard(ws)
    else:
        ws.close(1008)


ping = {} if os.environ.get("PING") == "1" else {"ping_interval": None}
with serve(handler, "127.0.0.1", int(os.environ["PORT"]), compression=None, **ping) as server:
    server.serve_forever()
