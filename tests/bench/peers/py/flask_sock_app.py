"""flask-sock (simple-websocket).  `python flask_sock_app.py` = werkzeug threaded;
gunicorn uses flask_sock_app:app.  Env: PORT, PING (1 = heartbeats), NODELAY (1 = werkzeug without Nagle)."""

import logging
import os
import threading

from flask import Flask
from flask_sock import ConnectionClosed, Sock

app = Flask(__name__)
if os.environ.get("PING") == "1":
    app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 25}
sock = Sock(app)

room = set()
room_lock = threading.Lock()


def no_deflate(wsgi):
    """simple-websocket always accepts permessage-deflate when it is offered and has
    no option against it: hide the offer."""

    def call(environ, start_response):
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        return wsgi(environ, start_response)

    return call


app.wsgi_app = no_deflate(app.wsgi_app)


@sock.route("/echo")
def echo(ws):
    while True:
        ws.send(ws.receive())


def broadcast(data):
    # the lock also serialises senders: simple-websocket's send() is not thread-safe
    with room_lock:
        for member in list(room):
            try:
                member.send(data)
            except (ConnectionClosed, OSError):
                room.discard(member)


@sock.route("/room")
def room_route(ws):
    with room_lock:
        room.add(ws)
    try:
        while True:
            broadcast(ws.receive())
    finally:
        with room_lock:
            room.discard(ws)


if __name__ == "__main__":
    import flask.cli
    from werkzeug.serving import WSGIRequestHandler

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    flask.cli.show_server_banner = lambda *a, **k: None
    if os.environ.get("NODELAY") == "1":
        WSGIRequestHandler.disable_nagle_algorithm = True
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]), threaded=True, debug=False)
