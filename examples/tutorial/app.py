"""The lounge: its page, its tokens, and its WebSocket, in one WSGI application."""

import os
from contextlib import suppress
from pathlib import Path

from flask import Flask, jsonify, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from wsthreads import Request, WebSocketApp

here = Path(__file__).parent
tokens = URLSafeTimedSerializer(os.environ["TOKEN_SECRET"], salt="lounge")

app = Flask(__name__, static_folder=here / "public", static_url_path="")
sockets = WebSocketApp(
    app.wsgi_app,
    serve_client=True,
    serve_health=True,
    serve_metrics=True,
    trusted_proxies=int(os.environ.get("TRUSTED_PROXIES", "0")),
)
sockets.add_script("/ws/lounge", here / "lounge.js")


@app.get("/")
def index():
    return app.send_static_file("index.html")


@app.post("/token")
def token():
    """A placeholder: it accepts any name. A real view checks a session cookie or a password."""
    user = request.form.get("user", "").strip()[:40]
    return jsonify(token=tokens.dumps(user)) if user else (jsonify(error="say who you are"), 400)


def with_user(environ, start_response):
    """Set X-User to the user of a token that is at most a minute old. Drop the header if a client sends it."""
    environ.pop("HTTP_X_USER", None)
    with suppress(BadSignature):
        environ["HTTP_X_USER"] = tokens.loads(Request(environ).get_parameter("token") or "", max_age=60)
    return sockets(environ, start_response)


app.wsgi_app = with_user
