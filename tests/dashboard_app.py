"""What gunicorn serves in tests/dashboard/test_workers_page.py: a chat over Redis, with a page about the server."""

import os

from wsthreads import WebSocketApp

app = WebSocketApp(redis=os.environ["CHAT_REDIS"])


@app.route("/ws/chat")
class Chat:
    def on_handshake(self, request):
        request.user = request.get_parameter("user")

    def on_open(self, session):
        session.room("garden").join(presence={"pid": os.getpid()})
        session.send(f"process {os.getpid()}")

    def on_message(self, session, message):
        session.send(message)
