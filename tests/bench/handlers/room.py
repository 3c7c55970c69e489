"""One room: each message goes to everybody in it, its sender included."""


def on_open(session):
    session.room("bench").join()


def on_message(session, message):
    session.room("bench").broadcast(message)
