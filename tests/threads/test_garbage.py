"""How often Python's garbage collector looks at everything, in processes of the server's own."""

import gc
from ast import literal_eval
from math import prod

import pytest

from tests.programs import connect, receive, run_server
from wsthreads.threads.garbage import NEW_OBJECTS, postpone_full_collections

HANDLER = "import gc\ndef on_message(session, message): session.send(repr(gc.get_threshold()))\n"


@pytest.fixture(autouse=True)
def thresholds():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_only_full_collections_wait():
    gc.set_threshold(700, 10, 10)
    postpone_full_collections()
    first, second, third = gc.get_threshold()
    assert (first, second) == (700, 10)
    assert first * second * third == pytest.approx(NEW_OBJECTS, rel=0.01)


@pytest.mark.parametrize("chosen", [(0, 10, 10), (700, 10, 5), (700, 10, 1000), (200_000, 10, 10)])
def test_what_the_application_has_chosen_stays(chosen):
    gc.set_threshold(*chosen)
    postpone_full_collections()
    assert gc.get_threshold() == chosen


@pytest.mark.parametrize(("more", "chosen"), [("", None), ("gc.set_threshold(800, 9, 8)\n", (800, 9, 8))])
def test_wsthreads_run_has_them_wait_unless_the_handler_says_otherwise(tmp_path, more, chosen):
    handler = tmp_path / "echo.py"
    handler.write_text(HANDLER.replace("\ndef", f"\n{more}def"))
    with run_server(handler) as server, connect(f"{server.ws_url}/ws/echo") as client:
        client.send("")
        told = literal_eval(str(receive(client)))
    if chosen is None:
        assert prod(told) == pytest.approx(NEW_OBJECTS, rel=0.01)
    else:
        assert told == chosen
