"""What a slow client has not read yet, without a socket."""

from hypothesis import given
from hypothesis import strategies as st

from wsthreads.protocol.backlog import WRITE_BYTES, Backlog


def backlog(*pieces):
    it = Backlog()
    for piece in pieces:
        it.add(piece)
    return it


def test_small_pieces_are_joined_to_one_write_and_large_ones_are_not():
    large = b"x" * WRITE_BYTES
    it = backlog(b"a", b"b", large, b"c", b"d")
    assert it.first() == b"ab" + large
    assert it.bytes == WRITE_BYTES + 4
    assert it.advance(len(it.first()))
    assert it.first() == b"cd"


def test_what_is_written_in_part_is_at_the_front_until_the_rest_is():
    it = backlog(b"abc", b"d")
    it.first()
    assert not it.advance(3)
    assert (it.first(), it.offset, it.bytes) == (b"abcd", 3, 1)
    assert it.advance(1)
    assert (list(it.pieces), it.offset, it.bytes) == ([], 0, 0)


def test_a_piece_that_has_begun_is_not_discarded():
    it = backlog(b"abc")
    it.advance(1)
    it.add(b"later")
    it.discard(keep_first=False)
    assert (list(it.pieces), it.bytes) == ([b"abc"], 2)


def test_a_piece_that_has_not_begun_is_kept_only_where_it_must_be():
    it = backlog(b"abc", b"d")
    it.discard(keep_first=True)
    assert list(it.pieces) == [b"abc"]
    it.discard(keep_first=False)
    assert (list(it.pieces), it.bytes) == ([], 0)


@given(st.lists(st.one_of(st.binary(max_size=5), st.integers(0, 9), st.just("discard"))))
def test_whatever_is_done_it_knows_what_is_left(calls):
    it, wanted, begun = Backlog(), b"", 0
    for call in calls:
        if isinstance(call, bytes):
            it.add(call)
            wanted += call
        elif call == "discard":
            it.discard(keep_first=False)
            wanted = wanted[: it.bytes] if begun else b""
        elif it.pieces:
            written = min(call, len(it.first()) - it.offset)
            begun = not it.advance(written) and it.offset
            wanted = wanted[written:]
        it._check()
        assert b"".join(it.pieces)[it.offset :] == wanted
