"""The client's side of wsthreads.1, without a connection."""

from wsthreads.client.dialogue import Dialogue
from wsthreads.protocol import envelope


def begin(dialogue, *, resumed=False, received=0):
    dialogue.connected(speaks=True)
    written = []
    write(dialogue, written)
    dialogue.receive(envelope.welcome(envelope.Welcome(resumed, "token", received, 60_000, 25_000, 20_000)))
    return written


def write(dialogue, written):
    while dialogue.can_take:
        written.append(dialogue.take())
    assert dialogue.take() is None


def test_it_writes_no_more_than_a_server_holds_that_slows_it_down_until_that_acknowledges():
    dialogue = Dialogue(max_queued=20_000, max_queued_bytes=10_000_000)
    written = begin(dialogue)
    for _ in range(10):
        assert dialogue.send("x" * 100_000)
    write(dialogue, written)
    assert len(written) == 1 + 8, "786,432 bytes, where a message counts for 100 more"
    dialogue.receive(envelope.ack(1))
    write(dialogue, written)
    assert len(written) == 1 + 9
    dialogue.disconnected()
    written = begin(dialogue, resumed=True, received=9)
    write(dialogue, written)
    assert written[1:] == ["x" * 100_000]
    for _ in range(10_000):
        assert dialogue.send("x")
    write(dialogue, written)
    assert len(written) == 6798
    dialogue.disconnected()
    written = begin(dialogue)
    write(dialogue, written)
    assert len(written) == 1 + 10_001 - 6797
