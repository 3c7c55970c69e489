"""What gunicorn serves in tests/dashboard/test_workers_page.py: a chat and a game, over Redis."""

import os
import threading

from wsthreads import WebSocketApp

app = WebSocketApp(redis=os.environ["CHAT_REDIS"], history_messages=100)


@app.route("/ws/chat")
class Chat:
    def on_handshake(self, request):
        request.user = request.get_parameter("user")

    def on_open(self, session):
        session.room("garden").join(presence={"pid": os.getpid()})
        session.send(f"process {os.getpid()}")

    def on_message(self, session, message):
        session.send(message)


@app.route("/ws/game")
class Game:
    tick_rate = 20

    def __init__(self):
        self.go_on = threading.Event()

    def on_open(self, session):
        session.room(session.get_parameter("table")).join()
        session.send(f"process {os.getpid()}")

    def on_message(self, session, message):
        if message == "go on":
            self.go_on.set()
        else:
            session.room(session.get_parameter("table")).post(message, wait=False)

    def on_room_start(self, room):
        room.set_attribute("owner", os.getpid())

    def on_tick(self, room, dt):
        """Takes no time."""

    def on_post(self, room, value, sender):
        if value == "stop":
            self.go_on.wait(30)
        else:
            room.broadcast(value)
