"""Answers each request with itself."""


def on_request(session, message):
    return message
