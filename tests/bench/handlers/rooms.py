"""Each session is in rooms of its own."""

ROOMS = 100


def on_open(session):
    for number in range(ROOMS):
        session.room(f"{session.id} {number}").join()
