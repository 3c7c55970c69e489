"""Tests of seats.js and seats.py: ``python -m pytest examples``."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from wsthreads import Client, RequestError
from wsthreads.testing import live_server


@pytest.fixture(params=["seats.js", "seats.py"])
def enter(request):
    """Makes clients, each with a name and an answer to all requests."""
    with live_server(Path(__file__).with_name(request.param), resume_s=60) as server, ExitStack() as stack:

        def enter(name, answer=None):
            asked = []

            def on_request(question):
                asked.append(question)
                if answer is None:
                    raise RequestError("ask me later")
                return answer

            client = stack.enter_context(Client(f"{server.ws_url}/ws/seats?user={name}", on_request=on_request))
            return client, asked

        yield enter


def test_a_free_seat_is_given_to_who_asks_first(enter):
    ann, _ = enter("ann")
    assert ann.request("A1") == "A1 is yours"
    assert ann.request("A1") == "A1 is yours"
    for wrong in ("A0", "G1", "A11", "", b"A1"):
        with pytest.raises(RequestError, match="there are seats A1 to F9"):
            ann.request(wrong)


@pytest.mark.parametrize(("answer", "reply"), [("yes", "A1 is yours"), ("no", "ann keeps A1"), (None, "ann keeps A1")])
def test_who_has_a_seat_is_asked(enter, answer, reply):
    ann, asked = enter("ann", answer)
    bob, _ = enter("bob")
    assert ann.request("A1") == "A1 is yours"
    try:
        told = bob.request("A1")
    except RequestError as error:
        told = str(error)
    assert (told, asked) == (reply, ["bob asks for A1"])


def test_who_leaves_gives_all_seats_back(enter):
    ann, _ = enter("ann", "no")
    bob, _ = enter("bob")
    assert ann.request("A1") == "A1 is yours"
    ann.close()
    replies = []
    while not replies or replies[-1] == "ann keeps A1":  # until the server has handled the close
        try:
            replies.append(bob.request("A1"))
        except RequestError as error:
            replies.append(str(error))
    assert replies[-1] == "A1 is yours"
