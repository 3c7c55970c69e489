"""Requests in both directions: a client asks for a seat, and the server asks who has it. The same as seats.js.

    wsthreads run seats.py --resume-s 60

A handler may wait for a reply. Its thread reads the connection meanwhile, and other sessions have threads of their own.
"""

import re
import threading

from wsthreads import Refusal, RequestError, RequestTimeout, Session, SessionClosed

ANSWER_S = 20.0

holders: dict[str, Session] = {}  # by seat
lock = threading.Lock()  # guards holders; not held while a request is sent


def on_handshake(request):
    request.user = request.get_parameter("user") or None  # This demo accepts any name.
    return None if request.user else Refusal(4000, "say who you are: ?user=ann")


def on_request(session, seat):
    if not (isinstance(seat, str) and re.fullmatch("[A-F][1-9]", seat)):
        raise RequestError("there are seats A1 to F9")
    holder = holders.get(seat)
    if holder not in (None, session) and answer_of(holder, f"{session.user} asks for {seat}") != "yes":
        raise RequestError(f"{holder.user} keeps {seat}")
    with lock:
        if holders.get(seat) is not holder:
            raise RequestError(f"the holder of {seat} has just changed")  # another request was faster
        holders[seat] = session
    return f"{seat} is yours"


def answer_of(session, question):
    try:
        return session.request(question, timeout=ANSWER_S)
    except (RequestTimeout, SessionClosed, RequestError) as error:
        return f"no: {error}"


def on_close(session):
    with lock:
        for seat in [seat for seat, holder in holders.items() if holder is session]:
            del holders[seat]
