"""The handler that the fuzzing client talks to."""


def on_message(session, message):
    session.send(message)
