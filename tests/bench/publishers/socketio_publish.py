"""The same with python-socketio and its Redis manager."""

import sys
from time import perf_counter

import socketio

url, seconds = sys.argv[1], float(sys.argv[2])
server = socketio.Server(async_mode="threading", client_manager=socketio.RedisManager(url))
server.emit("m", "first", room="lobby")
count, began = 0, perf_counter()
while perf_counter() - began < seconds:
    for _ in range(100):
        server.emit("m", "x" * 100, room="lobby")
    count += 100
print(count / (perf_counter() - began))
