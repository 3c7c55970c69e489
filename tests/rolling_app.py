"""The app of `test_rolling_restarts`: it echoes, broadcasts, and writes into a file what happens to its sessions."""

import logging
import os

from wsthreads import WebSocketApp

log = logging.getLogger("wsthreads")  # why a session has moved, or has not
log.setLevel(logging.DEBUG)
to_file = logging.FileHandler(os.environ["CALLS"] + ".log")
to_file.setFormatter(logging.Formatter("%(asctime)s %(process)d %(name)s: %(message)s"))
log.addHandler(to_file)

CALLS = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(what, session, *more):
    os.write(CALLS, " ".join(map(str, (what, session.id, os.getpid(), *more))).encode() + b"\n")


class Handler:
    def on_open(self, session):
        session.attributes["name"] = session.get_parameter("name")
        session.room(session.get_parameter("room")).join()
        note("open", session)

    def on_message(self, session, message):
        session.send(f"echo {message}")
        (room,) = session.rooms()
        session.room(room).broadcast(f"{session.attributes['name']} {message}")

    def on_suspend(self, session):
        note("suspend", session)

    def on_resume(self, session):
        note("resume", session)

    def on_close(self, session, code, reason):
        note("close", session, code, reason)


app = WebSocketApp(redis=os.environ["REDIS_URL"] or False, resume_s=60, ping_interval_s=5, ping_timeout_s=10)
app.add_handler("/ws", Handler())
