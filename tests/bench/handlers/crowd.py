"""One room, in which not everybody behaves: who floods is answered, and heard by nobody else."""


def on_open(session):
    session.room("bench").join()


def on_message(session, message):
    if message.startswith("flood"):
        session.send(message)
    else:
        session.room("bench").broadcast(message)
