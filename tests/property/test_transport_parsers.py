"""However the bytes are cut on their way, what is read out of them is the same."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping, TextMessage

from transom.target.etl.transports.answers import ChunkedBody, SizedBody, UnsizedBody, read_head
from transom.target.etl.transports.exchange import BrokenError
from transom.target.etl.transports.http import path_of
from transom.target.etl.transports.ws_frames import BINARY, CONTINUATION, PING, TEXT, FrameReader, frame

contents = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
cuts = st.lists(st.integers(1, 30), max_size=40)


def in_pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in sizes:
        if data:
            yield data[:size]
            data = data[size:]
    if data:
        yield data


@given(contents, cuts, st.sampled_from([b"", b";name=value", b" "]), st.sampled_from([b"", b"A: b\r\nC: d\r\n"]))
def test_a_body_in_chunks_gives_the_content_of_the_chunks(
    chunks: list[bytes], sizes: list[int], extension: bytes, trailers: bytes
) -> None:
    sent = b"".join(b"%X%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    sent += b"0" + extension + b"\r\n" + trailers + b"\r\n"
    body = ChunkedBody()
    content = b""
    for piece in in_pieces(sent, sizes):
        assert not body.done
        content += body.feed(piece)
    assert body.done
    assert not body.excess
    assert content == b"".join(chunks)


@given(contents, cuts, st.integers(1, 400))
def test_a_body_in_chunks_that_breaks_off_is_never_done(chunks: list[bytes], sizes: list[int], missing: int) -> None:
    sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    body = ChunkedBody()
    content = b"".join(body.feed(piece) for piece in in_pieces(sent[:-missing], sizes))
    assert not body.done
    assert b"".join(chunks).startswith(content)
    with pytest.raises(BrokenError):
        body.end()


@given(st.binary(max_size=100), st.binary(max_size=5), cuts)
def test_a_body_of_a_known_length_takes_no_more_than_that(content: bytes, more: bytes, sizes: list[int]) -> None:
    body = SizedBody(len(content))
    came = b"".join(body.feed(piece) for piece in in_pieces(content + more, sizes))
    assert came == content
    assert body.done
    assert body.excess == bool(more)


@given(st.binary(max_size=300), cuts)
def test_a_body_that_ends_with_the_connection_is_all_that_came(content: bytes, sizes: list[int]) -> None:
    body = UnsizedBody({})
    came = b"".join(body.feed(piece) for piece in in_pieces(content, sizes))
    assert came + body.end() == content


@given(cuts, st.binary(max_size=30))
def test_a_head_is_read_to_its_end_and_no_further(sizes: list[int], body: bytes) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    sent = interim + b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n" + body
    pieces = in_pieces(sent, sizes)
    head, came = read_head(lambda: next(pieces, b""))
    assert (head.status, head.headers) == (200, {b"a": b"b"})
    assert came + b"".join(pieces) == body


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_path_names_the_same_key_and_is_not_resolved_on_its_way(key: str) -> None:
    path = path_of("photos", key)
    assert unquote(path) == f"/photos/{key}"
    assert path.isascii()
    assert path.isprintable()
    assert not set(path) & set("?# ")
    assert not {".", ".."} & set(path.split("/"))


@given(contents, st.lists(st.integers(0, 5), max_size=4), cuts)
def test_frames_of_a_server_give_its_messages(pieces: list[bytes], pings: list[int], sizes: list[int]) -> None:
    server = Connection(ConnectionType.SERVER)
    sent = b""
    for i, piece in enumerate(pieces):
        if i in pings:
            sent += server.send(Ping(b"%d" % i))
        sent += server.send(BytesMessage(piece, message_finished=i == len(pieces) - 1))
    sent += server.send(TextMessage("that was äll"))
    reader = FrameReader()
    events = [event for part in in_pieces(sent, sizes) for event in reader.feed(part)]
    assert b"".join(event.payload for event in events if event.kind == BINARY) == b"".join(pieces)
    assert [event.last for event in events if event.kind == BINARY].count(True) == bool(pieces)
    assert [event.payload.decode() for event in events if event.kind == TEXT] == ["that was äll"]
    assert [event.payload for event in events if event.kind == PING] == [
        b"%d" % i for i in range(len(pieces)) if i in pings
    ]
    assert reader.at_rest


@given(st.lists(st.binary(max_size=70000), min_size=1, max_size=3), st.booleans())
def test_a_servers_library_reads_our_frames(pieces: list[bytes], masked: bool) -> None:
    server = Connection(ConnectionType.SERVER)
    for i, piece in enumerate(pieces):
        kind = CONTINUATION if i else BINARY
        server.receive_data(b"".join(frame(kind, piece, final=i == len(pieces) - 1, masked=masked)))
    events = [event for event in server.events() if isinstance(event, BytesMessage)]
    assert b"".join(event.data for event in events) == b"".join(pieces)
    assert events[-1].message_finished
