"""Questions to all processes: who asks hears all answers, also the first time, and waits no longer than is of use."""

import random
import threading

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.room_worlds import RedisWorld
from wsthreads.errors import BrokerError


@pytest.fixture
def world(redis_server):
    world = RedisWorld(redis_server.url, prefix=f"questions-{random.randrange(2**32)}")
    yield world
    world.end()


def late_listener(link):
    """The link's reader connects when this event is set."""
    event, open_pubsub = threading.Event(), link._reader._open_pubsub

    def open_later():
        assert event.wait(DEADLINE_S)
        return open_pubsub()

    link._reader._open_pubsub = open_later
    return event


def test_a_process_that_has_just_begun_to_listen_hears_the_answers_to_its_first_question(world, monkeypatch):
    asking, answering = world.links
    answering.answer("age", lambda name: 7)
    answering.ask("nothing", None)  # it listens
    connecting, asked, found = late_listener(asking), [], []
    publish = asking._publish_question
    monkeypatch.setattr(asking._questions, "_publish", lambda data: (asked.append(data), publish(data))[1])
    thread = threading.Thread(
        target=lambda: found.append(asking.ask_all("age", "ann", DEADLINE_S, lambda value: False)), daemon=True
    )
    thread.start()
    asking.start()
    wait_until(lambda: asking._writer._thread.is_alive(), "the link has begun")
    assert not asked  # nobody would hear the answers
    connecting.set()
    thread.join(DEADLINE_S)
    ((answers, is_complete),) = found
    assert [each["value"] for each in answers] == [7]
    assert is_complete
    assert len(asked) == 1


def test_a_process_that_cannot_listen_asks_nobody_and_says_so(world, impatient):
    asking, answering = world.links
    answering.ask("nothing", None)
    connecting = late_listener(asking)
    impatient()
    with pytest.raises(BrokerError, match="is unavailable, so the question was not sent"):
        asking.ask_all("age", "ann", 0.05, lambda value: False)
    connecting.set()
