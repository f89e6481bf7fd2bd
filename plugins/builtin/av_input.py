"""Opens audio and video files with FFmpeg's libraries, so that nothing but the file is read, and decodes them.

Formats that only name other files, such as playlists, are never tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import av
from av.container import InputContainer

from transom.plugins.contract import Reject

MAX_PIXELS = 36_000_000  # a little more than 8K video has

# No concat, dash, hls, image2, lavfi, sdp and the like: they would open what the object's bytes tell them to.
_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,dv,eac3,flac,flv,gif,ivf,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,mxf,nut,ogg,tta,voc,w64,wav,wv"
)
_OPTIONS = {
    "format_whitelist": _FORMATS,
    "protocol_whitelist": "file",
    "max_streams": "100",
}


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a file. Raises Reject for what is no audio or video; so do errors of FFmpeg's within the context."""
    with refusing("not readable audio or video"):
        container = av.open(f"file:{path}", options=_OPTIONS, metadata_errors="replace")
    with container, refusing("damaged audio or video"):
        yield container


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn FFmpeg's errors into Reject."""
    try:
        yield
    except av.FFmpegError as error:
        raise Reject(f"{what}: {error.strerror}") from error


def first_stream(container: InputContainer, kind: Literal["audio", "video"]) -> Any:
    """Return the first stream of its kind, ready to be decoded. Raises Reject if there is none that can be."""
    streams = container.streams.audio if kind == "audio" else container.streams.video
    if not streams:
        raise Reject(f"there is no {kind} in it")
    context: Any = streams[0].codec_context
    if context is None:
        raise Reject(f"its {kind} is of a codec that this build of FFmpeg doesn't have")
    if kind == "video" and context.width * context.height > MAX_PIXELS:
        raise Reject(f"its pictures have {context.width}x{context.height} pixels, more than {MAX_PIXELS}")
    context.thread_count = 1
    context.options = {"max_pixels": str(MAX_PIXELS)}  # for those that grow on the way
    return streams[0]


def decoded(container: InputContainer, stream: Any, *, skip_errors: bool) -> Iterator[Any]:
    """Yield a stream's frames, one packet after the other; with `skip_errors`, those that can be had."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            if skip_errors:
                return  # nothing can be read behind it
            raise
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if skip_errors:
                continue
            raise
        yield from frames
