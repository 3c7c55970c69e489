"""Rooms in a Flask application, and a view that broadcasts to a room.

    flask --app examples/flask_app.py run --with-threads
    gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 100 --chdir examples flask_app:app

Open http://127.0.0.1:5000/ (8000 under gunicorn) in two windows, or::

    curl -d text='Lunch is ready' http://127.0.0.1:5000/announce
"""

import json

from flask import Flask, jsonify, request

from wsthreads import Session, WebSocketApp

app = Flask(__name__)
sockets = WebSocketApp(app.wsgi_app)
app.wsgi_app = sockets  # type: ignore[method-assign]  # Flask's documented way to add WSGI middleware


@sockets.route("/ws/news")
class News:
    """All clients are in one room, and each message goes to all others."""

    def on_open(self, session: Session) -> None:
        session.room("news").join()

    def on_message(self, session: Session, message: str) -> None:
        session.room("news").broadcast_except(json.dumps({"type": "message", "text": message}))


@app.post("/announce")
def announce():
    """A view or a background job can broadcast, from any thread, with the endpoint and the name of a room."""
    text = request.form.get("text", "").strip()
    if not text:
        return jsonify(error="give a text"), 400
    room = sockets.endpoint("/ws/news").room("news")
    listeners = room.members()
    room.broadcast(json.dumps({"type": "announcement", "text": text}))
    return jsonify(listeners=listeners)


@app.get("/")
def index():
    return """<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>News</title>
<h1>News</h1>
<form id="form"><label>Announce <input id="text" autofocus></label> <button>Send</button></form>
<ul id="news" aria-live="polite"></ul>
<script>
  const socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/[^/]*$/, "ws/news"));
  socket.onmessage = (event) => {
    const item = document.createElement("li");
    item.textContent = JSON.parse(event.data).text;
    document.getElementById("news").prepend(item);
  };
  document.getElementById("form").onsubmit = (event) => {
    event.preventDefault();
    fetch("announce", { method: "POST", body: new URLSearchParams({ text: text.value }) });
    text.value = "";
  };
</script>
"""
