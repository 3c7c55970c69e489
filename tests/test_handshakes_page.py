"""The examples of docs/how-to/handshakes.rst run: who is let in, by which login, and who is refused in which way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import jwt
import pytest

import wsthreads
from tests.pages import blocks, tables, text_of
from tests.programs import EXAMPLES, PROGRAM_S, ROOT
from wsthreads import HandshakeRefused, ScriptError, WebSocketApp
from wsthreads.testing import play

pytestmark = pytest.mark.usefixtures("apps_end")


def handshake_block(part: str, language: str = "python") -> str:
    """The example of docs/how-to/handshakes.rst that has this in it."""
    (found,) = [block for block in blocks("docs/how-to/handshakes", language) if part in block]
    return found


USERS = {"ann": {"name": "ann", "banned": False}, "eve": {"name": "eve", "banned": True}}


def check_guard(path: Path) -> None:
    with play(path) as guarded:
        with pytest.raises(HandshakeRefused, match="401"):
            guarded.connect(headers={"Authorization": "bob"})
        assert guarded.connect(headers={"Authorization": "eve"}).closed == (4003, "banned")
        assert guarded.connect(headers={"Authorization": "ann"}).is_open


def test_a_handshake_in_python_refuses_by_status_and_by_close_code(tmp_path: Path) -> None:
    (tmp_path / "guard.py").write_text(f"users = {USERS!r}\n{handshake_block('Refusal(4003')}")
    check_guard(tmp_path / "guard.py")


def test_a_handshake_in_javascript_refuses_by_status_and_by_close_code(tmp_path: Path) -> None:
    users = f"const users = new Map(Object.entries({json.dumps(USERS)}));\n"
    (tmp_path / "guard.js").write_text(users + handshake_block("close: 4003", "javascript"))
    check_guard(tmp_path / "guard.js")


def test_what_a_handshake_may_return_is_in_its_table(tmp_path: Path) -> None:
    (table,) = tables("docs/how-to/handshakes")
    for row in table[1:]:
        for column, suffix in enumerate((".js", ".py")):
            answer = row[column][0] if row[column] else "undefined"
            file = tmp_path / f"answers{suffix}"
            if suffix == ".js":
                file.write_text(f"export const onHandshake = () => ({answer});")
            else:
                file.write_text(f"from wsthreads import Refusal\ndef on_handshake(request): return {answer}\n")
            with play(file) as chat:
                if ("40" in answer and "4003" not in answer) or answer.lower() == "false":
                    with pytest.raises(HandshakeRefused, match="403" if answer.lower() == "false" else "401"):
                        chat.connect()
                else:
                    client = chat.connect(subprotocols=["chat"], plain=True)
                    assert client.closed == ((4003, "banned") if "4003" in answer else None)
                    assert client.subprotocol == ("chat" if answer == '"chat"' or "4003" in answer else None)


def test_a_handshake_may_raise_a_refusal_with_headers() -> None:
    text = re.findall(r"``(HandshakeRefused\(.*?\))``", text_of("docs/how-to/handshakes"), re.DOTALL)[0]

    class Busy:
        def on_handshake(self, request: Any) -> None:
            raise eval(text, vars(wsthreads))

    with play(Busy) as busy, pytest.raises(HandshakeRefused, match="429 slow down") as caught:
        busy.connect()
    assert ("Retry-After", "7") in caught.value.headers


def test_a_login_of_flask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "of this test")
    names: dict[str, Any] = {"__name__": "flask_login_example"}
    exec(handshake_block("flask.session"), names)
    application = names["flask_app"]

    @application.post("/login")
    def login() -> str:
        flask.session["user"] = "ann"
        return ""

    cookie = application.test_client().post("/login").headers["Set-Cookie"].partition(";")[0]
    with play(names["sockets"]) as chat:
        with pytest.raises(HandshakeRefused, match="401"):
            chat.connect()
        ann = chat.connect(headers={"Cookie": cookie})
        ann.send("hi")
        assert ann.take() == ["ann: hi"]


DJANGO = """
from django.conf import settings
from django.core.management import call_command
import django, sys

settings.configure(
    SECRET_KEY="of this test", ALLOWED_HOSTS=["localhost"], DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}
    },
    INSTALLED_APPS=[f"django.contrib.{app}" for app in ("auth", "contenttypes", "sessions")],
)
django.setup()
call_command("migrate", verbosity=0)

EXAMPLE

from django.contrib.auth.models import User
from django.test import Client
from wsthreads import HandshakeRefused
from wsthreads.testing import play

user, client = User.objects.create_user("ann"), Client()
client.force_login(user)
cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
with play(Chat) as chat:
    try:
        chat.connect()
    except HandshakeRefused as refused:
        print(refused.status)
    ann = chat.connect(headers={"Cookie": cookie})
    ann.send("hi")
    print(ann.take())
"""


def test_a_login_of_django(tmp_path: Path) -> None:
    program = DJANGO.replace("EXAMPLE", handshake_block("WSGIRequest"))
    command = [sys.executable, "-c", program, str(tmp_path / "database")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PROGRAM_S, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.stdout, done.returncode) == ("401\n['ann: hi']\n", 0), done.stderr


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_login_by_a_json_web_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    secret = "a secret of this test that is long enough " * 2
    if language == "python":
        monkeypatch.setenv("JWT_SECRET", secret)
        path, part, settings = tmp_path / "tokens.py", "jwt.decode", {}
    else:
        path, part, settings = tmp_path / "tokens.js", "crypto.subtle", {"env": {"JWT_SECRET": secret}}
    path.write_text(handshake_block(part, language))
    now = time.time()

    def token(key: str = secret, algorithm: str = "HS256", **claims: Any) -> str:
        return jwt.encode({"sub": "ann", "exp": now + 600, **claims}, key, algorithm=algorithm)

    header, payload, signature = token().split(".")
    bad = ["", "ann", "a.b.c", token(key="another secret that is long enough, too"), token(exp=now - 60), token()[:-3]]
    bad += [token(nbf=now + 60), token(algorithm="HS512"), f"{token()}.{signature}", f"{header}.{payload}."]
    bad.append(jwt.encode({"sub": "ann"}, secret, algorithm="HS256"))
    bad.append(jwt.encode({"exp": now + 600}, secret, algorithm="HS256"))
    bad.append(jwt.encode({"sub": "ann", "exp": now + 600}, None, "none"))
    with play(path, **settings) as chat:
        for wrong in bad:
            with pytest.raises(HandshakeRefused, match="401"):
                chat.connect(token=wrong)
        for ann in (chat.connect(token=token()), chat.connect(headers={"Authorization": f"Bearer {token()}"})):
            ann.send("hi")
            assert ann.take() == ["ann: hi"]
        assert chat.connect(token=token(sub="zoë 🎉 ?>~")).session.user == "zoë 🎉 ?>~"
        chat.advance(590)
        assert ann.is_open
        chat.advance(10)
        assert ann.closed == (3000, "expired")


def test_a_script_does_not_start_without_the_secret_of_its_tokens(tmp_path: Path) -> None:
    (tmp_path / "tokens.js").write_text(handshake_block("crypto.subtle", "javascript"))
    with pytest.raises(ScriptError, match="DataError: an HMAC key is at least one byte"):
        play(tmp_path / "tokens.js")


def test_a_script_checks_a_token_by_a_python_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_SECRET", "of this test")
    (tmp_path / "tokens.py").write_text(handshake_block("user_of(token"))
    (tmp_path / "chat.js").write_text(handshake_block("user_of", "javascript"))
    names: dict[str, Any] = {}
    exec(handshake_block("user_of(token"), names)
    token = names["serializer"].dumps("ann")
    with play(tmp_path / "chat.js") as chat:
        for wrong in "", "ann", token[:-1], token.replace(".", ""):
            with pytest.raises(HandshakeRefused, match="401"):
                chat.connect(token=wrong)
        ann = chat.connect(token=token)
        ann.send("hi")
        assert ann.take() == ["ann: hi"]


def test_the_page_of_the_tutorial_fetches_a_token_for_each_connection() -> None:
    """tests/test_tutorial.py opens it in a browser."""
    page = (EXAMPLES / "tutorial" / "public" / "index.html").read_text()
    shown = handshake_block('"/token"', "javascript")
    assert [line.strip() for line in shown.splitlines()] == [
        line.strip() for line in page.splitlines() if line.strip() in shown and line.strip()
    ][: len(shown.splitlines())]


def test_a_page_learns_why_it_was_refused(serve: Callable[..., Any], browser: Any) -> None:
    class Guard:
        def on_handshake(self, request: Any) -> wsthreads.Refusal:
            return wsthreads.Refusal(4003, "banned")

    def a_page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<p>A page"]

    app = WebSocketApp(a_page)
    app.add_handler("/ws/chat", Guard())
    context = browser.new_context()
    page = context.new_page()
    page.goto(serve(app).url)
    said = page.evaluate(
        f"""() => new Promise((show) => {{
          const connect = () => show("it tried again");
          const socket = new WebSocket("/ws/chat");
          {handshake_block("onclose", "javascript")}
        }})"""
    )
    context.close()
    assert said == "You cannot join: banned"
