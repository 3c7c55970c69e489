"""What test_prometheus has gunicorn serve: a room that tells in which process one is, with metrics."""

import os

from wsthreads import WebSocketApp

app = WebSocketApp(serve_metrics=True, serve_health=True)


@app.route("/ws/chat")
class Chat:
    def on_handshake(self, request):
        request.user = request.get_parameter("user")

    def on_open(self, session):
        session.room("chat").join(presence="here")
        session.send(f"process {os.getpid()}")

    def on_message(self, session, message):
        if message.startswith("ban "):
            app.endpoint("/ws/chat").user(message[4:]).close(4001, ban_s=60)
        session.send(message)
