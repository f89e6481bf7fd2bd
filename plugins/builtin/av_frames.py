"""Takes evenly spaced frames of a video, scaled and turned upright, as a tar of pictures or one NumPy array."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.filter import Graph

from transom.plugins.builtin import av_input, npy, tar_stream
from transom.plugins.builtin.clock import Clock
from transom.plugins.builtin.ffmpeg import FfmpegArgs
from transom.plugins.contract import Context, Reject

MIB = 1024 * 1024
_ENCODERS = {"jpeg": ("mjpeg", "yuvj420p", "jpg"), "png": ("png", "rgb24", "png")}
_JPEG_QUALITY = "3"  # on FFmpeg's scale from 1 to 31
_TURNS = {90: ("cclock",), -90: ("clock",), 180: ("clock", "clock"), -180: ("clock", "clock")}


def framed(path: Path, context: Context) -> Iterator[bytes]:
    """Yield the archive or array of the frames that are wanted."""
    args: FfmpegArgs = context.args
    clock = Clock(context)
    with av_input.opened(path) as source:
        frames = _taken(source, av_input.first_stream(source, "video"), args, clock)
        if args.frame_format() == "npy":
            pieces = _array(frames, path.parent / "output", args.max_output)
        else:
            pieces = tar_stream.written(_members(frames, *_ENCODERS[args.frame_format()], args.max_output))
        yield from clock.over(pieces)


def _taken(source: InputContainer, stream: Any, args: FfmpegArgs, clock: Clock) -> Iterator[av.VideoFrame]:
    """Yield the frames shown in the middle of each of so many equal spans, none twice."""
    length = _length_s(source, stream, clock)
    end = min(length, args.end() or length)
    if end <= args.start:
        raise Reject(f"there are no pictures after {args.start:g} s: it has {length:g} s")
    count = args.frames or 1
    last: int | None = None
    for index in range(count):
        at = args.start + (end - args.start) * (2 * index + 1) / (2 * count)
        frame = _shown_at(source, stream, at, clock, skip_errors=args.errors == "skip")
        if frame is not None and frame.pts != last:
            last = frame.pts
            yield _upright(_scaled(frame, args.width))
    if last is None:
        raise Reject("there are no pictures in it")


def _length_s(source: InputContainer, stream: Any, clock: Clock) -> float:
    """Return how long the video is: as it says, or else as its packets do."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if source.duration:
        return source.duration / av.time_base
    last = 0
    for packet in source.demux(stream):
        clock.check()
        last = max(last, (packet.pts or 0) + (packet.duration or 0))
    return float((last - (stream.start_time or 0)) * stream.time_base)


def _shown_at(
    source: InputContainer, stream: Any, at_s: float, clock: Clock, *, skip_errors: bool
) -> av.VideoFrame | None:
    target = round(at_s / stream.time_base) + (stream.start_time or 0)
    source.seek(target, stream=stream, backward=True)
    before: av.VideoFrame | None = None
    for frame in av_input.decoded(source, stream, skip_errors=skip_errors):
        clock.check()
        if frame.pts is None:
            raise Reject("its frames have no times")
        if frame.pts > target:
            return before or frame
        before = frame
    return before


def _scaled(frame: av.VideoFrame, width: int | None) -> av.VideoFrame:
    """Scale to a width, which is that of the upright picture."""
    if width is None:
        return frame
    there, other = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
    height = max(2, round(other * width / there))
    if width * height > av_input.MAX_PIXELS:
        raise Reject(f"the frames would have {width}x{height} pixels")
    return frame.reformat(*((height, width) if frame.rotation % 180 else (width, height)))


def _upright(frame: av.VideoFrame) -> av.VideoFrame:
    """Turn a frame as its container says it is to be shown."""
    steps = _TURNS.get(round(frame.rotation))
    if steps is None:
        return frame
    graph = Graph()
    nodes = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        *(graph.add("transpose", step) for step in steps),
        graph.add("buffersink"),
    ]
    for one, next_one in pairwise(nodes):
        one.link_to(next_one)
    graph.configure()
    graph.push(frame)
    turned = graph.pull()
    assert isinstance(turned, av.VideoFrame)
    return turned


def _members(
    frames: Iterator[av.VideoFrame], codec: str, pixels: str, extension: str, max_output: int
) -> Iterator[bytes]:
    total = 0
    for number, frame in enumerate(frames, 1):
        data = _encoded(frame, codec, pixels)
        total += len(data)
        _check_size(total, max_output)
        member = tarfile.TarInfo(f"frame-{number:04}.{extension}")
        member.size = len(data)
        yield member.tobuf(tarfile.USTAR_FORMAT)
        yield from tar_stream.padded([data], len(data))


def _encoded(frame: av.VideoFrame, codec: str, pixels: str) -> bytes:
    picture = frame.reformat(format=pixels)
    picture.pts = 0
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, pixels
    encoder.time_base = Fraction(1, 1)
    encoder.thread_count = 1
    encoder.flags |= Flags.bitexact
    if codec == "mjpeg":
        encoder.options = {"qmin": _JPEG_QUALITY, "qmax": _JPEG_QUALITY}
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


def _array(frames: Iterator[av.VideoFrame], path: Path, max_output: int) -> Iterator[bytes]:
    """Write the array to a file, for its header says how many frames there are; then yield it."""
    count = 0
    shape: tuple[int, int] | None = None
    with path.open("w+b") as file:
        file.write(bytes(npy.HEADER_SIZE))
        for frame in frames:
            if shape not in (None, (frame.height, frame.width)):
                raise Reject("its frames are of different sizes: ask for jpeg or png")
            shape = (frame.height, frame.width)
            _check_size(file.tell() + frame.width * frame.height * 3, max_output)
            file.writelines(_rows(frame.reformat(format="rgb24")))
            count += 1
        file.seek(0)
        file.write(npy.header("|u1", (count, *(shape or (0, 0)), 3)))
        file.seek(0)
        while piece := file.read(MIB):
            yield piece


def _rows(frame: av.VideoFrame) -> Iterator[bytes]:
    plane = frame.planes[0]
    pixels = memoryview(plane)
    for start in range(0, frame.height * plane.line_size, plane.line_size):
        yield bytes(pixels[start : start + frame.width * 3])


def _check_size(size: int, max_output: int) -> None:
    if size > max_output:
        raise Reject(f"the output has more than {max_output} bytes (max_output)")
