"""The handler of `cluster`: ``room`` is a parameter. Each message is broadcast, and its sender gets the result."""

from wsthreads import BrokerError


def on_open(session):
    session.room(session.get_parameter("room")).join()
    session.send("joined")


def on_message(session, message):
    room = session.room(session.get_parameter("room"))
    if message == "members":
        session.send(f"members {room.members()}")
        return
    try:
        room.broadcast(f"said {message}")
    except BrokerError:
        session.send(f"refused {message}")
    else:
        session.send(f"taken {message}")
