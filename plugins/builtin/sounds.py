"""What sound is written as: formats with their codecs, Content-Types and extensions. It needs no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MIB = 1024 * 1024
GIB = 1024 * MIB
MAX_OUTPUT = 4 * GIB - MIB  # of a WAV file

AudioFormat = Literal["wav", "flac", "mp3", "ogg", "opus", "raw", "npy"]
Codec = Literal[
    "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_alaw", "pcm_mulaw",
    "flac", "libmp3lame", "libopus",
]  # fmt: skip

# The first is the one that is taken unasked.
CODECS: dict[AudioFormat, tuple[Codec, ...]] = {
    "wav": ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_alaw", "pcm_mulaw"),
    "flac": ("flac",),
    "mp3": ("libmp3lame",),
    "ogg": ("libopus", "flac"),
    "opus": ("libopus",),
    "raw": ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8"),
    "npy": ("pcm_f32le", "pcm_s32le", "pcm_s16le", "pcm_u8"),
}
RATES: dict[Codec, tuple[int, ...]] = {
    "libmp3lame": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "libopus": (8000, 12000, 16000, 24000, 48000),
}
CHANNELS_MAX: dict[Codec, int] = {"flac": 8, "libmp3lame": 2, "libopus": 8}
CONTENT_TYPES: dict[AudioFormat, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "raw": "binary/octet-stream",
    "npy": "binary/octet-stream",
}


@dataclass(frozen=True, slots=True)
class Sound:
    """What sound is asked for: which part, in seconds of the source, and how it is written; None is as the source's."""

    format: AudioFormat
    codec: Codec
    rate: int | None = None
    channels: int | None = None
    bitrate: int | None = None
    start_s: float = 0.0
    end_s: float | None = None
    skip_errors: bool = False
    max_output: int = GIB
