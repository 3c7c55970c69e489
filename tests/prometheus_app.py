"""What test_prometheus has gunicorn serve: a room that tells in which process one is, with metrics."""

import os

from wsthreads import WebSocketApp

app = WebSocketApp(serve_metrics=True, serve_health=True)


@app.route("/ws/chat")
class Chat:
    def on_open(self, session):
        session.room("chat").join()
        session.send(f"process {os.getpid()}")

    def on_message(self, session, message):
        session.send(message)
