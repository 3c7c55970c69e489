"""What test_gunicorn has gunicorn serve: a chat room, and a plain page. Each on_close leaves a line in a file."""

import os
import sys
import time

from werkzeug.exceptions import abort

from wsthreads import Refusal, WebSocketApp

BIG_BYTES = 2**26  # more than sockets buffer


def plain(environ, start_response):
    if environ["PATH_INFO"] == "/upload":
        print("a body is wanted", flush=True)
        got = len(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [b"got %d" % got]
    if environ["PATH_INFO"] == "/big":
        start_response("200 OK", [("Content-Length", str(BIG_BYTES))])
        return (b"x" * 65536 for _ in range(BIG_BYTES // 65536))
    if environ["PATH_INFO"] == "/work":
        print("at work", flush=True)
        while not os.path.exists(os.environ["MARKERS"] + ".go"):
            time.sleep(0.01)
    if environ["PATH_INFO"] == "/cookies":
        start_response("200 OK", [])
        return [environ["HTTP_COOKIE"].encode()]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"process %d" % os.getpid()]


app = WebSocketApp(plain, handshake_timeout_s=float(os.environ["HANDSHAKE_TIMEOUT_S"]))


@app.route("/ws/chat")
class Chat:
    def on_handshake(self, request):
        if request.get_parameter("refuse") == "code":
            return Refusal(4003, "banned")
        if request.get_parameter("refuse") == "abort":
            abort(401, "who are you?")
        return None

    def on_open(self, session):
        session.room("chat").join()
        session.send(f"process {os.getpid()}")
        session.room("chat").broadcast_except("join")
        if name := session.get_parameter("tell"):
            session.send(session.get_header(name))

    def on_message(self, session, message):
        if message == "exit":
            sys.exit(3)
        if message == "work":
            print("at work", flush=True)
            while not os.path.exists(os.environ["MARKERS"] + ".go"):
                time.sleep(0.01)
            print("work is done", flush=True)
        session.room("chat").broadcast_except(message)
        session.send(f"sent {message}")

    def on_close(self, session, code, reason):
        with open(os.environ["MARKERS"], "a") as markers:
            markers.write(f"{session.id} {code} {session.room('chat').members() > 0}\n")


@app.route("/ws/where/<int:table>/<name>")
class Where:
    def on_handshake(self, request):
        request.set_expiry(time.time() + float(request.get_parameter("left")))

    def on_open(self, session):
        session.send(repr(dict(session.path_parameters)))
