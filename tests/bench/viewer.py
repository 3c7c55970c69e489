"""A viewer of the dashboard, as a process: ``python -m tests.bench.viewer PORT``.

It watches the sessions and the rooms, the most that the page can request. The filter matches all sessions. The process
prints an empty line when it is connected, and runs until its standard input ends. Then it prints how many messages of
each kind it has received, as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from threading import Thread

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

WATCHES = (
    {"type": "watch", "list": "sessions", "filter": "127.0", "sort": "messages_in", "descending": True, "limit": 100},
    {"type": "watch", "list": "rooms", "limit": 100},
)


def count(socket: ClientConnection, kinds: Counter[str]) -> None:
    try:
        for message in socket:
            kinds[json.loads(message)["type"]] += 1
    except ConnectionClosed:
        pass


def main(port: str) -> None:
    kinds: Counter[str] = Counter()
    with connect(f"ws://127.0.0.1:{port}/_wsthreads/live", compression=None, max_size=2**24, proxy=None) as socket:
        socket.recv(timeout=10)
        for watch in WATCHES:
            socket.send(json.dumps(watch))
        reader = Thread(target=count, args=(socket, kinds), daemon=True)
        reader.start()
        print(flush=True)
        sys.stdin.read()
        socket.close()
        reader.join(10)
    print(json.dumps(kinds))


if __name__ == "__main__":
    main(*sys.argv[1:])
