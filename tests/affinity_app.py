"""What test_affinity has gunicorn serve: a session and a page tell the process, and the cores of their thread."""

import os

from wsthreads import WebSocketApp


def place():
    return " ".join(map(str, [os.getpid(), *sorted(os.sched_getaffinity(0))]))


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [place().encode()]


setting = os.environ.get("CPU_AFFINITY")
app = WebSocketApp(plain, cpu_affinity=None if setting is None else setting == "1")


@app.route("/ws/place")
class Place:
    def on_message(self, session, message):
        session.send(place())
