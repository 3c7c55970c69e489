"""Flask's session and login in a handshake. A signal and a logout reach the clients.

    pip install flask flask-login
    flask --app examples/flask_login_app.py run --debug
    gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 100 --chdir examples flask_login_app:app

Open http://127.0.0.1:5000/ (8000 under gunicorn) in two windows.
"""

import os

from blinker import Namespace
from flask import Flask, redirect, render_template_string, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user, user_logged_out

from wsthreads import Request, Session, WebSocketApp

PAGE = """<!doctype html><html lang="en"><title>News</title><h1>News</h1>
{% if not current_user.is_authenticated %}
  <form method="post" action="/login"><input name="name" autofocus> <button>Log in</button></form>
{% else %}
  <form method="post" action="/announce"><input name="text" autofocus> <button>Announce</button></form>
  <form method="post" action="/logout"><button>Log out {{ current_user.id }}</button></form>
  <ul id="news"></ul>
  <script>
    const socket = new WebSocket(location.href.replace(/^http/, "ws") + "ws/news");
    socket.onmessage = ({ data }) => news.prepend(Object.assign(document.createElement("li"), { textContent: data }));
  </script>
{% endif %}"""

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY", "only for trying it out")
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"  # forms of other sites are sent without our cookie
sockets = WebSocketApp(app.wsgi_app)
app.wsgi_app = sockets  # type: ignore[method-assign]
login_manager = LoginManager(app)
announced = Namespace().signal("announced")


@login_manager.user_loader
def load_user(name: str) -> UserMixin:
    user = UserMixin()
    user.id = name
    return user


@sockets.route("/ws/news")
class News:
    """Only logged-in users may connect."""

    def on_handshake(self, handshake: Request) -> int | None:
        with app.request_context(handshake.environ):  # as in a view, but changes of the session are not saved
            if not current_user.is_authenticated:  # without Flask-Login: if "name" not in flask.session
                return 401
            handshake.user = current_user.id
        return None

    def on_open(self, session: Session) -> None:
        session.room("news").join()
        session.send(f"Hello, {session.user}")


news = sockets.endpoint("/ws/news")


@announced.connect
def tell(user: str, text: str) -> None:
    news.room("news").broadcast(f"{user}: {text}")


@user_logged_out.connect
def close_sessions(sender: Flask, user: UserMixin) -> None:
    """End the user's sessions on all devices. The cookie is checked only in the handshake.

    With several workers, set WSTHREADS_REDIS, so that this reaches all workers. The short ban is for a handshake that
    has passed the check and is not a session yet.
    """
    news.user(user.id).close(4001, "logged out", ban_s=1)


@app.get("/")
def index():
    return render_template_string(PAGE)


@app.post("/login")
def login():
    login_user(load_user(request.form["name"]))  # a real login asks for a password
    return redirect("/")


@app.post("/logout")
@login_required
def logout():
    logout_user()
    return redirect("/")


@app.post("/announce")
@login_required
def announce():
    announced.send(current_user.id, text=request.form["text"])
    return redirect("/")
