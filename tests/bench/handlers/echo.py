"""Answers each message with itself."""


def on_message(session, message):
    session.send(message)
