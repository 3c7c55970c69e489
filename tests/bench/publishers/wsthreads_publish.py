"""Broadcasts from one thread of a process with wsthreads: URL, SECONDS. Prints how many a second Redis has taken."""

import sys
from time import perf_counter, sleep

from wsthreads import RedisBroker, WebSocketApp

url, seconds = sys.argv[1], float(sys.argv[2])
app = WebSocketApp(broker=RedisBroker(url))
room = app.add_handler("/ws/chat", type("Handler", (), {"on_open": lambda self, session: None})()).room("lobby")
room.broadcast("first")
while app.broadcasts_waiting:
    sleep(0.001)
count, began = 0, perf_counter()
while perf_counter() - began < seconds:
    for _ in range(100):
        room.broadcast("x" * 100)
    count += 100
while app.broadcasts_waiting:
    sleep(0.001)
print(count / (perf_counter() - began))
app.shutdown(1)
