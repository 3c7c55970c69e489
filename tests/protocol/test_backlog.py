"""What a slow client has not read yet, without a socket."""

from hypothesis import given
from hypothesis import strategies as st

from wsthreads.protocol.backlog import WRITE_BYTES, Backlog
from wsthreads.protocol.frames import MarkedFrame


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
    it.advance(len(it.first()))
    assert it.first() == b"cd"


def test_what_is_written_in_part_is_at_the_front_until_the_rest_is():
    it = backlog(b"abc", b"d")
    it.first()
    it.advance(3)
    it.hold(0)
    assert (it.first(), it.offset, it.bytes, it.begun) == (b"abcd", 3, 1, 1)
    it.advance(1)
    assert (list(it.pieces), it.offset, it.bytes) == ([], 0, 0)


def test_a_piece_that_has_begun_is_not_discarded():
    it = backlog(b"abc")
    it.advance(1)
    it.hold(0)
    it.add(b"later")
    it.discard()
    assert (list(it.pieces), it.bytes) == ([b"abc"], 2)


def test_a_piece_that_tls_has_only_tried_to_write_is_not_discarded():
    it = backlog(b"abc", b"d")
    it.hold(2)
    it.discard()
    assert list(it.pieces) == [b"abc"]
    it.advance(3)
    it.add(b"later")
    it.hold(0)
    it.discard()
    assert (list(it.pieces), it.bytes) == ([], 0)


def keyed(key, payload, room="r"):
    return MarkedFrame(payload, key, room=room)


def pieces(it):
    return [bytes(piece) for piece in it.pieces if piece]


def slow(*frames):
    it = Backlog()
    it.add(b"begun")
    it.advance(1)
    it.hold(0)
    for frame in frames:
        it.add(frame)
        it._check()
    return it


def test_a_frame_replaces_the_one_with_its_key_and_goes_to_the_end():
    it = slow(keyed("a", b"1"), keyed("b", b"2"), b"plain", keyed("a", b"33"))
    assert pieces(it) == [b"begun", b"2", b"plain", b"33"]
    assert it.bytes == 4 + 1 + 5 + 2
    assert it.count == 4
    assert it.add(keyed("c", b"4")) == 0
    assert it.add(keyed("b", b"5")) == 1


def test_keys_of_rooms_and_of_the_session_are_different():
    it = slow(keyed("a", b"1", "r"), keyed("a", b"2", "s"), keyed("a", b"3", ""))
    assert pieces(it) == [b"begun", b"1", b"2", b"3"]
    it.add(keyed("a", b"4", "s"))
    assert pieces(it) == [b"begun", b"1", b"3", b"4"]


def test_a_mark_without_a_key_replaces_nothing():
    it = slow(MarkedFrame(b"1", is_kept=False), MarkedFrame(b"2", is_kept=False))
    assert pieces(it) == [b"begun", b"1", b"2"]


def test_nothing_is_replaced_while_the_client_keeps_up():
    it = backlog(keyed("a", b"1"), keyed("a", b"2"))
    assert it.first() == b"12"
    it.add(keyed("a", b"3"))
    it.advance(2)
    it._check()
    assert it.first() == b"3"


def test_when_the_kernel_is_full_only_the_last_frame_with_each_key_stays():
    it = backlog(keyed("a", b"11"), keyed("b", b"22"), keyed("a", b"33"), b"p", keyed("a", b"44"), keyed("b", b"55"))
    it.first()
    it.advance(1)
    assert it.hold(0) == 2
    it._check()
    assert pieces(it) == [b"11", b"p", b"44", b"55"]  # the first has begun
    assert it.add(keyed("a", b"66")) == 1
    assert pieces(it) == [b"11", b"p", b"55", b"66"]


def test_what_tls_has_tried_to_write_stays_as_it_was():
    it = backlog(keyed("a", b"11"), keyed("b", b"22"), keyed("c", b"33"))
    tried = it.first()
    assert it.hold(3) == 0
    for key in "abc":
        it.add(keyed(key, b"new"))
    it._check()
    assert it.first().startswith(tried[:3])
    assert pieces(it) == [b"11", b"22", b"new", b"new", b"new"]


def test_a_backlog_of_few_keys_stays_small():
    it = slow()
    for n in range(10_000):
        it.add(keyed(f"key {n % 100}", b"%d" % n))
        assert len(it.pieces) <= 250
    it._check()
    assert pieces(it)[1:] == [b"%d" % n for n in range(9900, 10_000)]


def test_a_large_frame_with_a_key_is_not_copied_at_each_attempt():
    large = keyed("a", b"x" * WRITE_BYTES)
    it = slow(keyed("b", b"1"), large)
    assert it.first() == b"begun1"
    it.advance(5)
    assert it.first() is large


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=5), st.integers(0, 9), st.just("discard"))))
def test_whatever_is_done_with_plain_frames_it_knows_what_is_left(calls):
    it, wanted = Backlog(), b""
    for call in calls:
        if isinstance(call, bytes):
            it.add(call)
            wanted += call
        elif call == "discard":
            it.discard()
            wanted = wanted[: it.bytes] if it.offset else b""
        elif it.pieces:
            left = len(it.first()) - it.offset
            written = min(call, left)
            it.advance(written)
            if written < left:
                it.hold(0)
            wanted = wanted[written:]
        it._check()
        assert b"".join(it.pieces)[it.offset :] == wanted


steps = st.one_of(
    st.binary(min_size=1, max_size=5),
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "r"]), st.binary(min_size=1, max_size=5)),
    st.integers(0, 9),
    st.tuples(st.just("hold"), st.integers(0, 9)),
    st.just("discard"),
)


@given(st.lists(steps))
def test_whatever_is_done_what_is_written_is_right(calls):
    """Against a list of frames with their keys, where the first of them may have begun."""
    it, written, is_slow, begun, sent, wanted = Backlog(), 0, False, 0, b"", b""
    it.add(keyed("first", b"1"))  # from here on pieces stay as they are
    model = [(("r", "first"), b"1")]
    for call in calls:
        if isinstance(call, bytes):
            it.add(call)
            model.append((None, call))
        elif isinstance(call, tuple) and call[0] != "hold":
            key, room, payload = call
            it.add(keyed(key, payload, room))
            if is_slow:
                model[begun:] = [each for each in model[begun:] if each[0] != (room, key)]
            model.append(((room, key), payload))
        elif call == "discard":
            it.discard()
            del model[begun:]
        elif isinstance(call, int):
            if not it.pieces:
                continue
            data = it.first()
            left = len(data) - it.offset
            now = min(call, left)
            sent += data[it.offset :][:now]
            wanted += b"".join(payload for _, payload in model)[written:][:now]
            assert sent == wanted
            it.advance(now)
            written += now
            while model and written >= len(model[0][1]):
                written -= len(model.pop(0)[1])
                begun = max(0, begun - 1)
            if now < left:  # as an outbox does
                call = ("hold", 0)
        if isinstance(call, tuple) and call[0] == "hold":
            tried = min(call[1], it.bytes)
            it.hold(tried)
            more, size = 0, 0
            while size < written + tried:
                size += len(model[more][1])
                more += 1
            begun = max(begun, more)
            if not is_slow:
                last = {key: at for at, (key, _) in enumerate(model) if key is not None}
                model = [each for at, each in enumerate(model) if at < begun or last.get(each[0], at) == at]
            is_slow = True
        it._check()
        assert b"".join(it.pieces)[it.offset :] == b"".join(payload for _, payload in model)[written:]
