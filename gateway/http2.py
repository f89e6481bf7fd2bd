"""Hypercorn's HTTP/2, but a stream whose app gave up in mid-body is reset.

Hypercorn itself sends no END_STREAM then, which is right, and nothing else either: the client would wait for ever.
"""

from __future__ import annotations

import h2.errors
import h2.exceptions
import hypercorn.protocol
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream


class ResettingH2Protocol(H2Protocol):
    """Sends RST_STREAM where a response was begun and not ended."""

    async def stream_send(self, event: StreamEvent) -> None:
        """See H2Protocol."""
        if isinstance(event, StreamClosed):
            stream = self.streams.get(event.stream_id)
            if isinstance(stream, HTTPStream) and stream.state is ASGIHTTPState.RESPONSE:
                await self._reset(event.stream_id)
        await super().stream_send(event)

    async def _reset(self, stream_id: int) -> None:
        try:
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        except h2.exceptions.ProtocolError:
            return  # the stream or its connection is closed already
        await self._flush()


def install() -> None:
    """Make Hypercorn use it: there is no setting for that."""
    hypercorn.protocol.H2Protocol = ResettingH2Protocol  # type: ignore[attr-defined]
