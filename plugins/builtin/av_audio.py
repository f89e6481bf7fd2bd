"""Cuts, resamples and encodes the sound of a file into another file, frame by frame.

The output depends on nothing but the input and what is asked for: no dates, versions or random numbers are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import av
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer

from transom.plugins.builtin import av_input, npy, sounds
from transom.plugins.builtin.clock import Clock
from transom.plugins.builtin.sounds import Sound
from transom.plugins.contract import Context, Reject

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_CHANNELS = range(1, 65)
_RATES = range(1000, 768_001)  # fewer samples a second would become thousands of times as many
_EXACT = ("aiff", "au", "caf", "flac", "w64", "wav")  # formats that tell of each sample which one it is
_IN_MEMORY = 4 * 1024 * 1024  # bytes of output
_PIECE = 256 * 1024
_SEEK_FROM_S = 10.0  # before, decoding from the beginning is as quick
_NPY_TYPES = {"pcm_f32le": "<f4", "pcm_s32le": "<i4", "pcm_s16le": "<i2", "pcm_u8": "|u1"}


def converted(path: Path, wanted: Sound, context: Context) -> Iterator[bytes]:
    """Yield the sound that is wanted, once all of it is made: in memory while it is small, else beside the input."""
    with SpooledTemporaryFile(_IN_MEMORY, dir=str(path.parent)) as file:
        _convert(path, file, wanted, context)
        file.seek(0)
        while piece := file.read(_PIECE):
            yield piece


def _convert(path: Path, file: SpooledTemporaryFile[bytes], wanted: Sound, context: Context) -> None:
    with av_input.opened(path) as source:
        stream = av_input.first_stream(source, "audio")
        _check(stream.codec_context)
        if wanted.format == "npy":
            file.write(bytes(npy.HEADER_SIZE))
        with av.open(file, "w", format=_muxer(wanted), options=_muxer_options(wanted)) as container:
            encoder = _Encoder(container, stream, wanted)
            clock = Clock(context)
            for frame in _clipped(source, stream, wanted):
                clock.check()
                encoder.write(frame)
            encoder.finish()
        if wanted.format == "npy":
            file.seek(0)
            file.write(npy.header(_NPY_TYPES[wanted.codec], (encoder.samples(), encoder.channels)))


def _check(there: Any) -> None:
    if there.channels not in _CHANNELS or there.sample_rate not in _RATES:
        raise Reject(f"its sound has {there.channels} channels at {there.sample_rate} Hz")


def _muxer(wanted: Sound) -> str:
    return wanted.codec.removeprefix("pcm_") if wanted.format in ("raw", "npy") else wanted.format


def _muxer_options(wanted: Sound) -> dict[str, str]:
    no_tags = {"id3v2_version": "0"} if wanted.format == "mp3" else {}
    return {"fflags": "bitexact", **no_tags}


def _clipped(source: InputContainer, stream: Any, wanted: Sound) -> Iterator[av.AudioFrame]:
    """Yield the frames of the part that is wanted, the first and last cut to the sample, timed from zero."""
    rate = stream.codec_context.sample_rate
    start, end = round(wanted.start_s * rate), None if wanted.end_s is None else round(wanted.end_s * rate)
    is_exact, is_flac = source.format.name in _EXACT, source.format.name == "flac"
    seeks = is_exact and wanted.start_s >= _SEEK_FROM_S
    if seeks:
        source.seek(int(wanted.start_s / stream.time_base), stream=stream, backward=True)
    position: int | None = None
    given = 0
    for frame in av_input.decoded(source, stream, skip_errors=wanted.skip_errors):
        there = None if frame.pts is None else round(frame.pts * frame.time_base * rate)
        if position is None:
            position = there if seeks and there is not None else 0
        elif is_exact and there not in (None, position) and not wanted.skip_errors:
            raise Reject(f"damaged audio: samples are missing at {position / rate:.3f} s")
        first, position = position, position + frame.samples
        if end is not None and first >= end:
            return
        if position <= start:
            continue
        part = _cut(frame, max(start - first, 0), min(position, position if end is None else end) - first)
        part.pts, part.time_base = given, Fraction(1, rate)
        given += part.samples
        yield part
    # FLAC says how many there are; what was lost at the end would be missed by nobody else.
    if is_flac and stream.duration and (position or 0) < stream.duration and not wanted.skip_errors:
        raise Reject(f"damaged audio: it has {position} of {stream.duration} samples")


def _cut(frame: av.AudioFrame, begin: int, end: int) -> av.AudioFrame:
    """Return a frame's samples from `begin` to `end`."""
    if (begin, end) == (0, frame.samples):
        return frame
    frame.pts = None
    fifo = av.AudioFifo()
    fifo.write(frame)
    if begin:
        fifo.read(begin)
    part = fifo.read(end - begin)
    assert part is not None
    return part


class _Encoder:
    """Encodes frames into a container."""

    def __init__(self, container: OutputContainer, source: Any, wanted: Sound) -> None:
        there = source.codec_context
        self._wanted = wanted
        self._container = container
        self.channels = wanted.channels or min(there.channels, sounds.CHANNELS_MAX.get(wanted.codec, there.channels))
        try:
            self._stream: Any = container.add_stream(
                wanted.codec,
                rate=_rate(wanted, there.sample_rate),
                layout=self._layout(there),
            )
        except av.codec.codec.UnknownCodecError as error:
            raise Reject(f"this build of FFmpeg has no encoder {wanted.codec}") from error
        self._stream.codec_context.flags |= Flags.bitexact
        if wanted.bitrate is not None:
            self._stream.codec_context.bit_rate = wanted.bitrate
        if wanted.codec == "flac" and there.format.name.startswith("s32"):
            self._stream.codec_context.format = "s32"
        self._begun = False
        self._size = 0

    def _layout(self, there: Any) -> str:
        """Name the channels: as there where samples are only stored, so that none is mixed; else as encoders do."""
        if self._wanted.codec.startswith("pcm_") and self.channels == there.channels:
            return str(there.layout.name)
        return _LAYOUTS[self.channels]

    def write(self, frame: av.AudioFrame) -> None:
        """Encode a frame. Raises Reject when the output becomes too large, or the sound another kind midway."""
        self._begun = True
        try:
            packets = self._stream.encode(frame)
        except av.FFmpegError as error:
            raise Reject(f"the sound can't be written by {self._wanted.codec}: {error.strerror}") from error
        except ValueError as error:
            raise Reject(f"the sound changes midway: {error}") from error
        self._mux(packets)

    def finish(self) -> None:
        """Write what the encoder held back. Raises Reject if nothing was written at all."""
        if not self._begun:
            raise Reject("there is no sound in the part that was asked for")
        self._mux(self._stream.encode(None))

    def samples(self) -> int:
        """How many samples a channel has, where they are written as they are."""
        width = int(_NPY_TYPES[self._wanted.codec][-1])
        return self._size // (width * self.channels)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._size += packet.size
            if self._size > self._wanted.max_output:
                raise Reject(f"the output has more than {self._wanted.max_output} bytes (max_output)")
            self._container.mux(packet)


def _rate(wanted: Sound, there: int) -> int:
    """Choose the rate: the one asked for, or the source's, or else the next that the codec has."""
    rates = sounds.RATES.get(wanted.codec)
    if wanted.rate is not None:
        return wanted.rate
    return there if rates is None else min((rate for rate in rates if rate >= there), default=rates[-1])
