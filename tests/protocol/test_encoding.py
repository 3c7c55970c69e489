"""How a message becomes the frame that a client gets: once for each encoding, and a new one is one class."""


import pytest

from tests.room_worlds import world_of
from wsthreads.protocol.deflate import agree
from wsthreads.protocol.encoding import PLAIN, Encoding, encoding_for
from wsthreads.protocol.frames import TEXT, encode_frame, message_frame, parse_header


class Envelope(Encoding):
    """What may come: it writes something before each message. It needs nothing but this class."""

    __slots__ = ("encoded",)

    def __init__(self):
        super().__init__("envelope")
        self.encoded = []

    def frame(self, plain):
        payload = plain[parse_header(plain).header_bytes :]
        self.encoded.append(payload.decode())
        return encode_frame(TEXT, b"m:" + payload)


@pytest.fixture(params=["local", "redis"])
def world(request):
    world = world_of(request, processes=1)
    yield world
    world.end()


def test_the_usual_encoding_leaves_frames_as_they_are():
    frame = message_frame("hello")
    assert encoding_for(None) is PLAIN
    assert PLAIN.frame(frame) is frame


def test_what_is_agreed_on_alike_is_one_encoding():
    twelve, other = encoding_for(agree("permessage-deflate")), encoding_for(agree("permessage-deflate"))
    nine = encoding_for(agree("permessage-deflate; server_max_window_bits=9"))
    assert twelve is other
    assert len({PLAIN.name, twelve.name, nine.name}) == 3
    frame = message_frame("x" * 1000)
    assert len(twelve.frame(frame)) < 100


def test_a_new_encoding_is_one_class(world):
    """For broadcasts, which are encoded once, and for what is sent to one session; over Redis as well."""
    envelope = Envelope()
    plain, *wrapped = [world.member() for _ in range(4)]
    for member in wrapped:
        member.outbox.encoding = envelope
    for member in (plain, *wrapped):
        member.session.room("r").join()
    plain.session.room("r").broadcast("to all")
    wrapped[0].session.room("r").broadcast_except("to others")
    assert plain.receive(2) == ["to all", "to others"]
    assert wrapped[0].receive(1) == ["m:to all"]
    for member in wrapped[1:]:
        assert member.receive(2) == ["m:to all", "m:to others"]
    assert envelope.encoded == ["to all", "to others"]
    assert wrapped[1].session.send("to one")
    assert plain.session.send("to one")
    assert wrapped[1].receive(1) == ["m:to one"]
    assert plain.receive(1) == ["to one"]
    world.rooms._check()


def test_members_of_many_encodings_in_any_order_get_their_own(world):
    class Numbered(Encoding):
        __slots__ = ()

        def frame(self, plain):
            return encode_frame(TEXT, self.name.encode() + plain[2:])

    encodings = [PLAIN, *(Numbered(name) for name in "abc")]
    members = [world.member() for _ in range(12)]
    for number, member in enumerate(members):
        member.outbox.encoding = encodings[number * 7 % 4]
        member.session.room("r").join()
    members[0].session.room("r").broadcast("!")
    for member in members:
        assert member.receive(1) == [f"{member.outbox.encoding.name}!"]
