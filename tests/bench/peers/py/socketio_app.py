"""python-socketio, async_mode="threading" (simple-websocket) under werkzeug threaded.
/echo/ and /room/ are two Socket.IO servers (engine.io paths), default namespace, event "m".
Env: PORT, PING, NODELAY, INLINE (1 = async_handlers=False: handlers run in the connection's own thread)."""

import logging
import os

import socketio
from werkzeug.serving import WSGIRequestHandler, run_simple

ping = {} if os.environ.get("PING") == "1" else {"ping_interval": 300, "ping_timeout": 86400}
options = dict(
    async_mode="threading",
    transports=["websocket"],
    logger=False,
    engineio_logger=False,
    http_compression=False,
    async_handlers=os.environ.get("INLINE") != "1",
    **ping,
)
echo = socketio.Server(**options)
room = socketio.Server(**options)


@echo.on("m")
def on_echo(sid, data):
    echo.emit("m", data, to=sid)


@room.event
def connect(sid, environ):
    room.enter_room(sid, "bench")


@room.on("m")
def on_room(sid, data):
    room.emit("m", data, to="bench")


def no_deflate(wsgi):
    def call(environ, start_response):
        environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
        return wsgi(environ, start_response)

    return call


app = socketio.WSGIApp(echo, socketio.WSGIApp(room, socketio_path="room"), socketio_path="echo")
app = no_deflate(app)

if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    if os.environ.get("NODELAY") == "1":
        WSGIRequestHandler.disable_nagle_algorithm = True
    run_simple("127.0.0.1", int(os.environ["PORT"]), app, threaded=True)
