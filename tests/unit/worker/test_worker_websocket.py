"""An SDK worker over WebSockets, with a client that isn't ours, and with bare frames where that one is too polite."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_runs import InProcess, received_all

from transom.worker import Context, Reject, Skip, Worker
from transom.worker.frames import accept_value, unmasked

Serving = Callable[..., InProcess]
BINARY, TEXT, CLOSE, PING, PONG = 2, 1, 8, 9, 10


class Shout(Worker):
    """Upper-case, piece by piece; some texts are commands."""

    def transform_stream(self, chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
        if context.args == "skip":
            raise Skip("not this one")
        for chunk in chunks:
            if chunk.startswith(b"reject"):
                raise Reject("no good")
            yield chunk.upper()
        if context.args == "fail late":
            raise ValueError("too late")


@pytest.fixture
async def session() -> Any:
    async with aiohttp.ClientSession() as session:
        yield session


def url(worker: InProcess) -> str:
    host, port = worker.address[:2]
    return f"http://{host}:{port}/ws"


def control(args: str = "", path: str = "b/a/k.txt", **more: Any) -> bytes:
    return json.dumps({"pipeline": "", "etl_args": args, "fqn": "", "path": path, **more}).encode()


async def exchanged(websocket: aiohttp.ClientWebSocketResponse, data: bytes, args: str = "") -> aiohttp.WSMessage:
    await websocket.send_bytes(control(args))
    await websocket.send_bytes(data)
    return await websocket.receive(timeout=20)


@pytest.mark.parametrize("protocols", [(), ("transom.etl.v1",)])
async def test_many_objects_over_one_connection(
    serving: Serving, session: aiohttp.ClientSession, protocols: tuple[str, ...]
) -> None:
    worker = serving(Shout)
    async with session.ws_connect(url(worker), protocols=protocols, max_msg_size=0) as websocket:
        assert websocket.protocol == (protocols[0] if protocols else None)
        for size in (0, 1, 125, 126, 65_535, 65_536, 3_000_001):
            answer = await exchanged(websocket, b"a" * size)
            assert (answer.type, answer.data) == (aiohttp.WSMsgType.BINARY, b"A" * size)


async def test_context_is_the_control_messages(serving: Serving, session: aiohttp.ClientSession) -> None:
    worker = serving(lambda _, c: repr((c.bucket, c.key, c.args, c.content_type, c.size)).encode())
    async with session.ws_connect(url(worker)) as websocket:
        await websocket.send_bytes(control('{"n": 1}', path="b/ü %2f?", content_type="a/b"))
        await websocket.send_bytes(b"12345")
        assert (await websocket.receive_bytes()).decode() == repr(("b", "ü %2f?", {"n": 1}, "a/b", 5))


@pytest.mark.parametrize(
    ("data", "args", "said"),
    [
        (b"x", "skip", {"error": "not this one", "outcome": "skip"}),
        (b"reject me", "", {"error": "no good", "outcome": "reject"}),
        (b"x", "fail late", {"error": "ValueError: too late", "outcome": "failed"}),
    ],
)
async def test_an_error_is_a_text_and_the_connection_goes_on(
    serving: Serving, session: aiohttp.ClientSession, data: bytes, args: str, said: dict[str, str]
) -> None:
    worker = serving(Shout)
    async with session.ws_connect(url(worker)) as websocket:
        answer = await exchanged(websocket, data, args)
        assert answer.type == aiohttp.WSMsgType.TEXT
        assert json.loads(answer.data) == said
        assert (await exchanged(websocket, b"again")).data == b"AGAIN"


async def test_an_error_within_a_result_closes_the_connection(serving: Serving, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(url(serving(Shout))) as websocket:
        answer = await exchanged(websocket, b"data" * 100_000, "fail late")
        assert (answer.type, answer.data) == (aiohttp.WSMsgType.CLOSE, 1011)


async def test_direct_file_comes_without_a_second_message(
    serving: Serving, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (tmp_path / "a b").write_bytes(b"stored")
    worker = serving(lambda data: data.upper(), direct_root=str(tmp_path))
    async with session.ws_connect(url(worker)) as websocket:
        await websocket.send_bytes(control(fqn=f"{tmp_path}/a%20b"))
        assert await websocket.receive_bytes() == b"STORED"
        await websocket.send_bytes(control(fqn="/etc/passwd"))
        assert json.loads(await websocket.receive_str())["outcome"] == "reject"


async def test_a_busy_worker_closes_with_try_again_later(serving: Serving, session: aiohttp.ClientSession) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def transform(_: bytes) -> bytes:
        begun.set()
        go_on.wait(10)
        return b"done"

    worker = serving(transform, concurrency=1)
    async with session.ws_connect(url(worker)) as first, session.ws_connect(url(worker)) as second:
        await first.send_bytes(control())
        await first.send_bytes(b"")
        await asyncio.to_thread(begun.wait, 10)
        await second.send_bytes(control(deadline_ms=20))
        await second.send_bytes(b"")
        assert (await second.receive(timeout=20)).data == 1013
        go_on.set()
        assert await first.receive_bytes() == b"done"


async def test_a_worker_that_ends_says_so(serving: Serving, session: aiohttp.ClientSession) -> None:
    worker = serving(Shout)
    async with session.ws_connect(url(worker)) as websocket:
        assert (await exchanged(websocket, b"x")).data == b"X"
        stopped = asyncio.create_task(asyncio.to_thread(worker.stop))
        answer = await websocket.receive(timeout=20)
        assert (answer.type, answer.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        assert await stopped


class Bare:
    """A client that sends what it is told to."""

    def __init__(self, worker: InProcess) -> None:
        self.sock = worker.socket()
        self.sock.sendall(
            b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in self.sock.recv(10_000)

    def send(self, opcode: int, payload: bytes, *, final: bool = True, mask: bytes | None = None) -> None:
        key = os.urandom(4) if mask is None else mask
        masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload)) if key else payload
        size = len(payload)
        head = bytes((opcode | (128 if final else 0), (128 if key else 0) | (size if size < 126 else 127)))
        self.sock.sendall(head + (struct.pack("!Q", size) if size > 125 else b"") + key + masked)

    def receive(self) -> tuple[int, bytes]:
        first, size = self.exactly(2)
        assert size < 126
        return first, self.exactly(size)

    def exactly(self, size: int) -> bytes:
        return self.sock.recv(size, socket.MSG_WAITALL) if size else b""


@pytest.fixture
def bare(serving: Serving) -> Iterator[Bare]:
    client = Bare(serving(Shout))
    yield client
    client.sock.close()


def test_fragments_go_out_while_fragments_come_in(bare: Bare) -> None:
    bare.send(TEXT, control())
    bare.send(BINARY, b"one", final=False)
    assert bare.receive() == (BINARY, b"ONE")
    bare.send(PING, b"there?")
    assert bare.receive() == (PONG | 128, b"there?")
    bare.send(0, b"", final=False)
    bare.send(0, b"two")
    assert bare.receive() == (0, b"TWO")
    assert bare.receive() == (128, b"")


def test_what_is_left_of_a_refused_message_is_read_for_nothing(bare: Bare) -> None:
    bare.send(BINARY, control())
    bare.send(BINARY, b"reject", final=False)
    assert bare.receive()[0] == TEXT | 128
    bare.send(0, b"more of it")
    bare.send(BINARY, control())
    bare.send(BINARY, b"x", mask=bytes(4))
    first, payload = bare.receive()
    assert (first & 127, payload) == (BINARY, b"X")


def test_a_close_is_answered(bare: Bare) -> None:
    bare.send(CLOSE, struct.pack("!H", 1000) + b"bye")
    assert received_all(bare.sock) == b"\x88\x02" + struct.pack("!H", 1000)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(BINARY, b"x", True, b"")], 1002),
        ([(0, b"x", True, None)], 1002),
        ([(0x42, b"x", True, None)], 1002),
        ([(3, b"x", True, None)], 1002),
        ([(PING, b"x" * 126, True, None)], 1002),
        ([(PING, b"x", False, None)], 1002),
        ([(BINARY, control(), False, None), (BINARY, b"", True, None)], 1002),
        ([(BINARY, b"no JSON", True, None)], 1003),
        ([(BINARY, b"[]", True, None)], 1003),
        ([(BINARY, b" " * 1_100_000, True, bytes(4))], 1009),
    ],
)
def test_a_client_that_breaks_the_rules_is_told_and_left(
    bare: Bare, frames: list[tuple[int, bytes, bool, bytes | None]], code: int
) -> None:
    for opcode, payload, final, mask in frames:
        bare.send(opcode, payload, final=final, mask=mask)
    first, payload = bare.receive()
    assert (first, int.from_bytes(payload[:2], "big")) == (CLOSE | 128, code)


@given(st.binary(max_size=300_000), st.binary(min_size=4, max_size=4))
def test_unmasking_is_its_own_inverse(data: bytes, mask: bytes) -> None:
    masked = unmasked(data, mask)
    assert masked[:9] == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data[:9]))
    assert unmasked(masked, mask) == data


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072, 200_001])
def test_unmasking_goes_on_from_block_to_block(size: int) -> None:
    data = os.urandom(size)
    assert unmasked(data, b"abcd") == bytes(byte ^ b"abcd"[i % 4] for i, byte in enumerate(data))


def test_accept_value_is_that_of_the_rfc() -> None:
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
