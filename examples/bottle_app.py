"""Rooms in a Bottle application, for clients with Bottle's signed cookie.

    pip install bottle
    python examples/bottle_app.py
    gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 100 --chdir examples bottle_app:sockets

Open http://127.0.0.1:8000/ in two windows.
"""

import os

import bottle

from wsthreads import Request, Session, WebSocketApp
from wsthreads.servers.serving import serve

SECRET = os.environ.get("SECRET_KEY", "only for trying it out")

app = bottle.Bottle()
sockets = WebSocketApp(app)


@sockets.route("/ws/chat")
class Chat:
    """All members receive each message."""

    def on_handshake(self, request: Request) -> int | None:
        request.attributes["name"] = bottle.BaseRequest(request.environ).get_cookie("name", secret=SECRET)
        return None if request.attributes["name"] else 401

    def on_open(self, session: Session) -> None:
        session.room("chat").join()

    def on_message(self, session: Session, message: str) -> None:
        session.room("chat").broadcast(f"{session.attributes['name']}: {message}")


@app.post("/name")
def name():
    bottle.response.set_cookie("name", bottle.request.forms.name, secret=SECRET, httponly=True, samesite="lax")
    bottle.redirect("/")


@app.post("/announce")
def announce():
    sockets.endpoint("/ws/chat").room("chat").broadcast(bottle.request.forms.text)


@app.get("/")
def index():
    return """<!doctype html><html lang="en"><title>Chat</title><h1>Chat</h1>
<form method="post" action="/name"><label>Your name <input name="name"></label> <button>Set</button></form>
<form id="form"><label>Message <input id="text" autofocus></label> <button>Send</button></form>
<ul id="messages"></ul>
<script>
  const socket = new WebSocket(location.href.replace(/^http/, "ws") + "ws/chat");
  socket.onmessage = ({ data }) => messages.prepend(Object.assign(document.createElement("li"), { textContent: data }));
  form.onsubmit = () => { socket.send(text.value); text.value = ""; return false; };
</script>"""


if __name__ == "__main__":
    raise SystemExit(serve(sockets, port=int(os.environ.get("PORT", "8000"))))
