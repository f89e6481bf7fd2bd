"""The WebSocket transport: many objects over one connection, streamed both ways, and a text is never a result."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.events import Request as Upgrade

from tests.stub_workers import Wire, a_call, stub_worker
from transom.plugins.contract import Reject, Skip
from transom.target.errors import EtlDisconnected, EtlFailed, EtlTimeout
from transom.target.etl.transports import ws
from transom.target.etl.transports.base import Address, WorkerLost
from transom.target.etl.transports.ws import PROTOCOL, WsTransport
from transom.target.etl.transports.ws_frames import BINARY, CONTINUATION, FrameError, FrameReader, frame
from transom.target.etl.watch import Watch

pytestmark = pytest.mark.usefixtures("either_way")

MIB = 1024 * 1024


class Peer:
    """A server's end of a WebSocket, by a library that isn't ours."""

    def __init__(self, wire: Wire, protocol: str | None = None) -> None:
        self.wire = wire
        self._connection = WSConnection(ConnectionType.SERVER)
        self._events = self._received()
        upgrade = self.event()
        assert isinstance(upgrade, Upgrade)
        self.offered = upgrade.subprotocols
        self.target = upgrade.target
        self.send(AcceptConnection(subprotocol=protocol))

    def send(self, event: Event) -> None:
        self.wire.send(self._connection.send(event))

    def event(self) -> Event:
        return next(self._events)

    def pieces(self) -> Iterator[bytes]:
        """One binary message as it comes."""
        while True:
            event = self.event()
            if type(event) is CloseConnection:
                raise EOFError
            assert isinstance(event, BytesMessage)
            yield bytes(event.data)
            if event.message_finished:
                return

    def message(self) -> bytes:
        return b"".join(self.pieces())

    def _received(self) -> Iterator[Event]:
        while True:
            self._connection.receive_data(self.wire.reader.read1(256 * 1024) or None)
            yield from self._connection.events()


@dataclass(frozen=True)
class Told:
    """What a worker was sent for one object."""

    control: dict[str, Any]
    body: bytes


Answer = Callable[[Peer, Told], object]


def serving(answer: Answer, protocol: str | None = None) -> Callable[[Wire], None]:
    """Serve one object after the other, as AIStore's workers do."""

    def serve(wire: Wire) -> None:
        peer = Peer(wire, protocol)
        while True:
            control = json.loads(peer.message())
            answer(peer, Told(control, b"" if control["fqn"] else peer.message()))

    return serve


def echo(peer: Peer, told: Told) -> None:
    peer.send(BytesMessage(told.body))


def run(transport: WsTransport, data: list[bytes], **call: Any) -> Generator[bytes, None, None]:
    return transport.run(a_call(**{"size": sum(map(len, data)), **call}), iter(data), Watch("stub", 20))


def whole(transport: WsTransport, *data: bytes, **call: Any) -> bytes:
    return b"".join(run(transport, list(data), **call))


def outcome_of(serve: Callable[[Wire], None], *data: bytes) -> tuple[bytes, Exception | None]:
    with stub_worker(serve) as worker:
        transport = WsTransport(worker.address)
        came = b""
        try:
            for piece in run(transport, list(data)):
                came += piece
        except Exception as error:
            return came, error
        finally:
            transport.close()
        return came, None


# --- what is sent ------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [None, PROTOCOL])
def test_an_object_is_a_control_message_and_its_bytes(protocol: str | None) -> None:
    seen: list[Told] = []

    def note(peer: Peer, told: Told) -> None:
        assert peer.offered == [PROTOCOL]
        assert peer.target == "/ws"
        seen.append(told)
        peer.send(BytesMessage(b"the result"))

    with stub_worker(serving(note, protocol)) as worker:
        transport = WsTransport(worker.address)
        told = {"key": "ä b//..", "etl_args": "7", "metadata": {"camera": "5"}}
        assert whole(transport, b"one", b"two", **told) == b"the result"
        assert whole(transport, b"bytes", path="/data/100% b") == b"the result"
        transport.close()
    first, second = seen
    ours = {"content_type": "binary/octet-stream", "metadata": {"camera": "5"}} if protocol else {}
    assert (first.control.pop("deadline_ms", 0) > 0) == bool(protocol)
    assert first.control == {"pipeline": "", "etl_args": "7", "fqn": "", "path": "photos/ä b//..", **ours}
    assert first.body == b"onetwo"
    assert second.control["fqn"] == "/data/100%25%20b"  # AIStore's workers take it for an escaped path
    assert worker.served == 1


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [None, 0])
@pytest.mark.parametrize("data", [[], [b"x" * 125], [b"x" * 126], [b"x" * 65535, b"y" * 65536], [b"", b"x", b""]])
def test_objects_of_any_size_come_back_as_they_were(
    data: list[bytes], size: int | None, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ws, "_is_local", lambda address: not masked)
    with stub_worker(serving(echo)) as worker:
        transport = WsTransport(worker.address)
        length = None if size is None else sum(map(len, data))
        assert whole(transport, *data, size=length) == b"".join(data)
        transport.close()


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (Address(unix="/x"), True),
        (Address(host="127.0.0.1"), True),
        (Address(host="::1"), True),
        (Address(host="10.0.0.1", netns_pid=5), True),
        (Address(host="10.0.0.1"), False),
        (Address(host="example.net"), False),
    ],
)
def test_frames_are_masked_where_they_leave_the_machine(address: Address, local: bool) -> None:
    assert ws._is_local(address) == local


def test_an_object_larger_than_a_message_may_be_is_refused() -> None:
    with pytest.raises(Reject, match="larger"):
        list(WsTransport(Address(unix="/x")).run(a_call(size=17 * 1024**3), iter([b"x"]), Watch("stub", 20)))


# --- what comes back ---------------------------------------------------------------------------


def test_an_empty_message_is_an_empty_result() -> None:
    assert outcome_of(serving(echo)) == (b"", None)


def stream_back(protocol: str | None) -> Callable[[Wire], None]:
    """Answer each piece as it comes."""

    def serve(wire: Wire) -> None:
        peer = Peer(wire, protocol)
        while True:
            peer.message()
            for piece in peer.pieces():
                peer.send(BytesMessage(piece, message_finished=False))
            peer.send(BytesMessage(b""))

    return serve


@pytest.mark.parametrize("unix", [False, True])
def test_a_large_object_streams_through_in_bounded_memory(unix: bool) -> None:
    pulled = 0

    def pieces() -> Iterator[bytes]:
        nonlocal pulled
        for i in range(64):
            pulled += MIB
            yield bytes([i]) * MIB

    with stub_worker(stream_back(PROTOCOL), unix=unix) as worker:
        transport = WsTransport(worker.address)
        came = furthest = 0
        for piece in transport.run(a_call(size=64 * MIB), pieces(), Watch("stub", 60)):
            assert piece.count(came // MIB) == min(len(piece), MIB - came % MIB)
            came += len(piece)
            furthest = max(furthest, pulled - came)
        transport.close()
    assert came == 64 * MIB
    assert (
        furthest <= (8 if unix else 56) * MIB
    )  # what the sockets of both ways hold, which for TCP is the kernel's choice


def test_one_connection_serves_many_objects() -> None:
    with stub_worker(serving(echo), unix=True) as worker:
        transport = WsTransport(worker.address)
        for i in range(50):
            assert whole(transport, b"%d" % i) == b"%d" % i
        transport.close()
    assert worker.served == 1


def test_many_at_once_each_get_their_own_result() -> None:
    with stub_worker(serving(echo), unix=True) as worker:
        transport = WsTransport(worker.address)

        def one(i: int) -> bool:
            data = b"%d," % i * 10_000
            return whole(transport, data) == data

        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(one, range(100)))
        transport.close()
    assert worker.served <= 16


def test_pings_are_answered() -> None:
    pongs: list[Event] = []

    def pinging(peer: Peer, told: Told) -> None:
        for payload in (b"one", b""):
            peer.send(Ping(payload))
            pongs.append(peer.event())
        echo(peer, told)

    assert outcome_of(serving(pinging), b"x" * MIB, b"y" * MIB) == (b"x" * MIB + b"y" * MIB, None)
    assert pongs == [Pong(b"one"), Pong(b"")]


def test_an_answer_that_is_complete_early_ends_the_sending() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(MIB)

    def first_bytes_only(wire: Wire) -> None:
        peer = Peer(wire)
        peer.message()
        next(peer.pieces())
        peer.send(BytesMessage(b"enough"))
        wire.is_left()

    with stub_worker(first_bytes_only) as worker:
        transport = WsTransport(worker.address)
        for _ in range(2):  # and its connection is not used again
            output = transport.run(a_call(), endless(), Watch("stub", 20))
            assert b"".join(output) == b"enough"
        transport.close()
    assert worker.served == 2


def test_closing_the_output_early_closes_the_connection() -> None:
    left = threading.Event()

    def endless(peer: Peer, told: Told) -> None:
        peer.send(BytesMessage(b"abc", message_finished=False))
        assert peer.wire.is_left()
        left.set()

    with stub_worker(serving(endless)) as worker:
        transport = WsTransport(worker.address)
        output = run(transport, [b"x"])
        assert next(output) == b"abc"
        output.close()
        assert left.wait(10)
        transport.close()


def test_a_deadline_ends_the_wait() -> None:
    with stub_worker(serving(lambda peer, told: peer.wire.is_left())) as worker:
        transport = WsTransport(worker.address)
        with pytest.raises(EtlTimeout):
            list(transport.run(a_call(size=0), iter(()), Watch("stub", 0.4)))
        transport.close()


# --- errors ------------------------------------------------------------------------------------


def saying(*events: Message[Any] | Ping | CloseConnection, protocol: str | None = None) -> Callable[[Wire], None]:
    def say(peer: Peer, told: Told) -> None:
        for event in events:
            peer.send(event)
        if type(events[-1]) is CloseConnection:
            raise EOFError

    return serving(say, protocol)


PIECE = BytesMessage(b"half", message_finished=False)


@pytest.mark.parametrize(
    ("protocol", "text", "kind", "message"),
    [
        (None, "Transform error: no good", EtlFailed, "no result: Transform error: no good$"),
        (None, "0", EtlFailed, "no result: 0$"),
        (None, '{"error": "x", "outcome": "skip"}', EtlFailed, "no result"),
        (PROTOCOL, '{"error": "bad luck", "outcome": "failed"}', EtlFailed, "^ETL 'stub' failed: bad luck$"),
        (PROTOCOL, '{"error": "no image", "outcome": "reject"}', Reject, "^no image$"),
        (PROTOCOL, '{"error": "", "outcome": "skip"}', Skip, "^$"),
        (PROTOCOL, "not what was agreed", EtlFailed, "not what was agreed"),
        (PROTOCOL, "[1]", EtlFailed, "failed"),
        (PROTOCOL, "e" * 60_000, EtlFailed, "e{1000}$"),
    ],
)
def test_a_text_is_never_a_result(protocol: str | None, text: str, kind: type[Exception], message: str) -> None:
    with stub_worker(saying(TextMessage(text), protocol=protocol)) as worker:
        transport = WsTransport(worker.address)
        for _ in range(2):  # and the connection goes on
            with pytest.raises(kind, match=message):
                whole(transport, b"x")
        transport.close()
    assert worker.served == 1


@pytest.mark.parametrize(
    ("events", "kind", "message"),
    [
        ([CloseConnection(1009)], Reject, "no message as large"),
        ([CloseConnection(1000)], EtlFailed, "without an answer"),
        ([CloseConnection(1001, "leaving")], WorkerLost, "lost"),
        ([CloseConnection(1012)], WorkerLost, "lost"),
        ([CloseConnection(1011, "bad luck")], EtlFailed, "^ETL 'stub' failed: bad luck$"),
        ([PIECE, CloseConnection(1011, "bad luck")], EtlFailed, "bad luck"),
        ([PIECE, CloseConnection(1001, "leaving")], EtlDisconnected, "middle"),
        ([PIECE, CloseConnection(1000)], EtlDisconnected, "middle"),
        ([Ping(), CloseConnection(1000)], EtlFailed, "without an answer"),
    ],
)
def test_a_close_is_never_a_result(events: list[Event], kind: type[Exception], message: str) -> None:
    came, error = outcome_of(saying(*events), b"x")  # type: ignore[arg-type]
    assert b"half".startswith(came)
    with pytest.raises(kind, match=message):
        raise error or AssertionError("no error")


@pytest.mark.parametrize(("begun", "kind"), [(False, WorkerLost), (True, EtlDisconnected)])
def test_a_cut_connection_is_an_error(begun: bool, kind: type[Exception]) -> None:
    def cut(peer: Peer, told: Told) -> None:
        if begun:
            peer.send(PIECE)
        raise EOFError

    came, error = outcome_of(serving(cut), b"x")
    assert came == (b"half" if begun else b"")
    assert type(error) is kind


def test_a_worker_that_closes_at_once_is_an_error() -> None:
    def closes(wire: Wire) -> None:
        peer = Peer(wire)
        peer.send(CloseConnection(1000))
        wire.is_left()

    _, error = outcome_of(closes, b"x")
    assert type(error) is EtlFailed


@pytest.mark.parametrize("text", [b"x", b"x" * MIB])
def test_a_connection_that_broke_while_idle_costs_nothing(text: bytes) -> None:
    def once(wire: Wire) -> None:
        peer = Peer(wire)
        peer.message()
        echo(peer, Told({}, peer.message()))
        peer.event()  # take the next one's first bytes, and hang up without a word

    with stub_worker(once) as worker:
        transport = WsTransport(worker.address)
        for _ in range(3):
            assert whole(transport, text) == text
        transport.close()
    assert worker.served == 3


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        ("404 Not Found", "", EtlFailed),
        ("403 Forbidden", "", EtlFailed),
        ("200 OK", "", EtlFailed),
        ("500 Error", "", EtlFailed),
        ("503 Busy", "Retry-After: 1\r\n", WorkerLost),
        ("101 Switching Protocols", "Sec-WebSocket-Accept: x\r\n", EtlFailed),
    ],
)
def test_a_worker_without_websockets_is_told_from_a_bad_object(
    status: str, headers: str, kind: type[Exception]
) -> None:
    def refuse(wire: Wire) -> None:
        wire.head()
        wire.answer(b"", status, headers)

    _, error = outcome_of(refuse, b"x")
    assert type(error) is kind


def raw(*parts: bytes) -> Callable[[Wire], None]:
    """Accept, and send these bytes for an answer, whatever is asked."""

    def serve(wire: Wire) -> None:
        head = wire.head()
        assert head is not None
        key = head.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        proof = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        accepted = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {proof}\r\n\r\n".encode()
        wire.send(accepted + parts[0], *parts[1:])
        wire.is_left()

    return serve


@pytest.mark.parametrize(
    "sent",
    [
        b"\xc2\x01x",  # a reserved bit
        b"\x82\x81\x00\x00\x00\x00x",  # masked
        b"\x83\x01x",  # an unknown kind
        b"\x80\x01x",  # the rest of nothing
        b"\x02\x01x\x82\x01x",  # a message inside another
        b"\x02\x01x\x81\x01x",
        b"\x89\x7e\x00\xff" + bytes(255),  # a long ping
        b"\x09\x00",  # a ping in parts
        b"\x82\x7f" + (2**63).to_bytes(8),
        b"\x81\x7f" + (2**20).to_bytes(8),
    ],
)
def test_what_is_no_frame_is_an_error(sent: bytes) -> None:
    came, error = outcome_of(raw(sent), b"x")
    assert came in (b"", b"x")
    assert type(error) is EtlFailed
    assert "no WebSocket" in str(error)


def test_frames_may_come_in_small_parts_and_whole_messages_at_once() -> None:
    assert outcome_of(raw(b"\x89\x00\x8a\x00\x82\x02ab"), b"x") == (b"ab", None)
    assert outcome_of(raw(*(bytes([byte]) for byte in b"\x02\x01a\x89\x00\x00\x00\x80\x01b")), b"x") == (b"ab", None)
    reader = FrameReader()
    events = reader.feed(b"\x01\x01a\x80\x01b\x82\x00")
    assert [(event.payload, event.last) for event in events] == [(b"ab", True), (b"", True)]
    assert b"".join(frame(CONTINUATION, b"", masked=False)) == b"\x80\x80" + bytes(4)
    assert b"".join(frame(BINARY, b"x", final=False, masked=False)) == b"\x02\x81" + bytes(4) + b"x"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_message_in_one_piece_is_the_same_as_byte_by_byte(size: int) -> None:
    payload = bytes(range(256)) * 257
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
    data = b"\x82" + length + payload[:size]
    whole, slow = FrameReader(), FrameReader()
    (event,) = whole.feed(data)
    assert (event.kind, event.payload, event.last) == (BINARY, payload[:size], True)
    events = [event for i in range(len(data)) for event in slow.feed(data[i : i + 1])]
    assert b"".join(event.payload for event in events) == payload[:size] and events[-1].last
    assert whole.at_rest and slow.at_rest


def test_a_masked_message_in_one_piece_is_refused() -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(b"\x82\x81" + bytes(4) + b"x")
