"""A logged-in user gets a signed token and connects with it. For handlers in Python and in JavaScript.

    TOKEN_SECRET=$(openssl rand -hex 32) gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 100 \\
        --chdir examples signed_tokens:app

A client sends the token as a query parameter or as ``Authorization: Bearer …``. Browsers cannot set headers, so they
can send it as a subprotocol::

    const body = new URLSearchParams({ user: "ann" });
    const { token } = await (await fetch("/token", { method: "POST", body })).json();
    new WebSocket(`wss://${location.host}/ws/python`, ["chat", `token.${token}`]);

URLs end up in logs, so a token is valid for only one minute. That is enough to connect, and the connection stays.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Flask, jsonify, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from wsthreads import Request, Session, WebSocketApp

TOKEN_LIFE_S = 60

#: All workers and machines need the same secret. Without TOKEN_SECRET, a process accepts only its own tokens.
tokens = URLSafeTimedSerializer(os.environ.get("TOKEN_SECRET") or secrets.token_hex(32), salt="websocket")

app = Flask(__name__)
sockets = WebSocketApp(app.wsgi_app)


@app.post("/token")
def token():
    """A placeholder for a view that identifies its user by a cookie or a password. This one accepts any name."""
    user = request.form.get("user", "").strip()
    if not user:
        return jsonify(error="say who you are"), 400
    return jsonify(token=tokens.dumps(user))


def user_of(handshake: Request) -> str | None:
    """The user of a handshake's token; None if the token is missing, forged or too old."""
    offered = [name.removeprefix("token.") for name in handshake.subprotocols if name.startswith("token.")]
    bearer = (handshake.get_header("Authorization") or "").removeprefix("Bearer ")
    try:
        return tokens.loads(handshake.get_parameter("token") or bearer or "".join(offered), max_age=TOKEN_LIFE_S)
    except BadSignature:
        return None


@sockets.route("/ws/python")
class Chat:
    def on_handshake(self, handshake: Request) -> int | str | None:
        user = user_of(handshake)
        if user is None:
            return 401
        handshake.user = user
        return "chat" if "chat" in handshake.subprotocols else None  # a browser needs a subprotocol that it offered

    def on_open(self, session: Session) -> None:
        session.room("chat").join()
        session.send(f"welcome, {session.user}")

    def on_message(self, session: Session, message: str) -> None:
        session.room("chat").broadcast(f"{session.user}: {message}")


# with_user checks the token for all scripts. They read the user from a header.
sockets.add_script("/ws/script", Path(__file__).with_suffix(".js"))


def with_user(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """WSGI middleware that sets X-User, and removes the header if a client sends it."""
    environ.pop("HTTP_X_USER", None)
    user = user_of(Request(environ))
    if user is not None:
        environ["HTTP_X_USER"] = user
    return sockets(environ, start_response)


app.wsgi_app = with_user  # type: ignore[method-assign]
