"""Makes sounds and videos in memory for the tests, and reads them by other ways than the transformers'."""

from __future__ import annotations

import array
import io
import math
import wave
from pathlib import Path
from typing import Any

import av


def samples(seconds: float, rate: int = 8000, channels: int = 1) -> bytes:
    """16-bit samples: another tone in each channel."""
    tones = [0.05 * (channel + 1) for channel in range(channels)]
    count = round(seconds * rate)
    return array.array("h", [int(12000 * math.sin(i * tone)) for i in range(count) for tone in tones]).tobytes()


def wav(data: bytes, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """A WAV file as Python's wave writes it."""
    output = io.BytesIO()
    with wave.open(output, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return output.getvalue()


def read_wav(data: bytes) -> tuple[int, int, int, bytes]:
    """Rate, channels, bytes a sample and samples, as Python's wave reads them."""
    with wave.open(io.BytesIO(data)) as file:
        return file.getframerate(), file.getnchannels(), file.getsampwidth(), file.readframes(file.getnframes())


def decoded(data: bytes) -> tuple[str, int, str, int]:
    """Format, rate, layout and number of samples, of a file that Python has no reader for."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.audio[0]
        count = sum(frame.samples for frame in container.decode(stream))
        return container.format.name, stream.codec_context.sample_rate, stream.codec_context.layout.name, count


def encoded(data: bytes, format: str, codec: str) -> bytes:
    """A WAV file in another format."""
    output = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(output, "w", format=format) as container:
        context = source.streams.audio[0].codec_context
        layout = {1: "mono", 2: "stereo"}[context.layout.nb_channels]
        stream: Any = container.add_stream(codec, rate=context.sample_rate, layout=layout)
        for frame in source.decode(audio=0):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return output.getvalue()


def video(path: Path, count: int = 20, size: tuple[int, int] = (48, 32), codec: str = "mpeg4") -> bytes:
    """A video of `count` grey frames, 10 a second, each brighter than the last; its upper left quarter is black."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 5
        stream.codec_context.qmin = stream.codec_context.qmax = 1
        for index in range(count):
            container.mux(stream.encode(_grey(width, height, grey(index))))
        container.mux(stream.encode(None))
    return path.read_bytes()


def grey(index: int) -> int:
    """How bright the frame of that number is."""
    return 40 + index * 8


def _grey(width: int, height: int, level: int) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, "rgb24")
    plane = frame.planes[0]
    row = bytes([level] * 3 * width).ljust(plane.line_size, b"\0")
    dark = (bytes(3 * (width // 2)) + bytes([level] * 3 * (width - width // 2))).ljust(plane.line_size, b"\0")
    plane.update(dark * (height // 2) + row * (height - height // 2))
    return frame.reformat(format="yuv420p")
