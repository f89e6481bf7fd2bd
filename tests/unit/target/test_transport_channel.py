"""Frames over a socket pair: however they are cut on the way, and whatever the other end does."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.target.etl.transports.channel import Channel, framed

_KINDS = st.sampled_from([b"H", b"J", b"D", b"E"])
_FRAMES = st.lists(st.tuples(_KINDS, st.binary(max_size=300)), max_size=8)


@given(_FRAMES, st.lists(st.integers(1, 400), max_size=6))
def test_frames_come_out_whole_however_they_are_cut(frames: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    ours, theirs = socket.socketpair()
    sent = b"".join(framed(kind, payload) for kind, payload in frames)
    with theirs:
        channel = Channel(ours)
        for cut in [*cuts, len(sent)]:
            theirs.sendall(sent[:cut])
            sent = sent[cut:]
        theirs.shutdown(socket.SHUT_WR)
        received = [channel.receive() for _ in frames]
        with pytest.raises(EOFError):
            channel.receive()
        channel.close()
    assert received == frames


@pytest.mark.parametrize("size", [0, 64 * 1024, 64 * 1024 + 1, 5 * 1024 * 1024])
def test_a_frame_of_any_size_passes_while_both_ends_are_at_it(size: int) -> None:
    ours, theirs = socket.socketpair()
    one, other = Channel(ours), Channel(theirs, lambda: None)
    sending = threading.Thread(target=one.send, args=(b"D", b"x" * size))
    sending.start()
    assert other.receive() == (b"D", b"x" * size)
    sending.join()
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("sent", "error", "said"),
    [(framed(b"D", b"x" * 1000)[:500], EOFError, "^$"), (b"D\xff\xff\xff\xff", ConnectionError, "no frame")],
    ids=["broken off", "claims too much"],
)
def test_what_is_no_whole_frame_is_refused(sent: bytes, error: type[Exception], said: str) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(error, match=said):
            channel.receive()
    channel.close()


@pytest.mark.parametrize("waits_to", ["send", "receive"])
def test_whoever_waits_looks_up_now_and_then(waits_to: str) -> None:
    looks = []

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 3:
            raise TimeoutError("long enough")

    ours, theirs = socket.socketpair()
    channel = Channel(ours, look)
    with theirs, pytest.raises(TimeoutError, match="long enough"):
        if waits_to == "send":
            channel.send(b"D", b"x" * 8 * 1024 * 1024)
        else:
            channel.receive()
    assert looks[2] - looks[0] > 0.3  # and not all the time
    channel.close()


def test_one_with_something_to_take_is_not_quiet() -> None:
    """Data that nobody asked for, or the other end's end."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours, lambda: None)
        assert channel.is_quiet()
        theirs.sendall(framed(b"D", b"12")[:3])
        assert not channel.is_quiet()
        theirs.sendall(framed(b"D", b"12")[3:])
        assert channel.receive() == (b"D", b"12")
        assert channel.is_quiet()
    assert not channel.is_quiet()
    channel.close()
