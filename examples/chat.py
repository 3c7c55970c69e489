"""The chat room of chat.js in Python: ``wsthreads run chat.py``.

The functions run in the thread of the session's own connection, so they may block. Other sessions' functions run at the
same time.
"""

import json
import time

from wsthreads import Session


def on_open(session: Session) -> None:
    username = session.get_parameter("user") or "anonymous"
    session.attributes["username"] = username
    session.room("chat").join()
    session.send(json.dumps({"type": "welcome", "id": session.id}))
    session.room("chat").broadcast_except(json.dumps({"type": "join", "user": username}))


def on_message(session: Session, message: str) -> None:
    username = session.attributes["username"]
    session.room("chat").broadcast_except(
        json.dumps({"type": "message", "from": username, "text": message, "timestamp": int(time.time() * 1000)})
    )


def on_close(session: Session) -> None:
    username = session.attributes["username"]
    session.room("chat").broadcast_except(json.dumps({"type": "leave", "user": username}))
    # the session leaves its rooms by itself after on_close returns
