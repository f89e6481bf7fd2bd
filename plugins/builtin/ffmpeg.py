"""`ffmpeg`: sound out of audio and video, cut, resampled and encoded anew; or some of a video's frames.

What it declares is here; the work is in `av_audio` and `av_frames`, which are imported by the first run: FFmpeg's
libraries are large.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from transom.plugins.builtin import sounds
from transom.plugins.builtin.sounds import AudioFormat, Codec, Sound
from transom.plugins.contract import Context, Transformer

FrameFormat = Literal["jpeg", "png", "npy"]
_BITRATE = re.compile(r"(\d{1,9})([kKmM]?)")
_FACTORS = {"": 1, "k": 1000, "m": 1_000_000}
_FRAME_FORMATS = ("jpeg", "png", "npy")


class FfmpegArgs(BaseModel):
    """Arguments of `ffmpeg`; some may also be given under the names they have with AIStore."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[AudioFormat, "jpeg", "png"] | None = Field(
        default=None,
        validation_alias=AliasChoices("format", "FORMAT"),
        description="Of the sound: wav (taken unasked), flac, mp3, ogg, opus, raw (samples and nothing else), npy "
        "(NumPy's array of samples x channels). Of frames: a tar of jpeg (taken unasked) or png, or npy (an array of "
        "frames x height x width x 3).",
        json_schema_extra={"first": True},
    )
    codec: Codec | None = Field(
        default=None,
        validation_alias=AliasChoices("codec", "CODEC"),
        description="For wav one of pcm_* (pcm_s16le), for raw and npy the type of the samples (pcm_s16le, "
        "pcm_f32le), for ogg libopus or flac.",
    )
    rate: int | None = Field(
        default=None,
        ge=1000,
        le=384_000,
        validation_alias=AliasChoices("rate", "AR"),
        description="Samples a second; by default the source's, or the next that the codec has.",
    )
    channels: int | None = Field(
        default=None, ge=1, le=8, validation_alias=AliasChoices("channels", "AC"), description="1 mixes down to mono."
    )
    bitrate: int | None = Field(
        default=None,
        ge=6000,
        le=512_000,
        validation_alias=AliasChoices("bitrate", "BR"),
        description="For mp3 and opus: bits a second, 96000 or 96k.",
    )
    start: float = Field(default=0.0, ge=0, le=1e7, description="Seconds to leave out at the beginning.")
    duration: float | None = Field(default=None, gt=0, le=1e7, description="Seconds to take; by default all.")
    frames: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Take so many frames of the video, evenly spaced, instead of the sound; fewer if it has fewer.",
    )
    width: int | None = Field(
        default=None, ge=16, le=8192, description="For frames: scale to so many pixels; height follows."
    )
    errors: Literal["reject", "skip"] = Field(
        default="reject", description="What to do with a packet that can't be decoded: refuse the object, or go on."
    )
    max_output: int = Field(default=sounds.GIB, gt=0, le=sounds.MAX_OUTPUT, description="Most bytes to put out.")

    @field_validator("bitrate", mode="before")
    @classmethod
    def _bitrate_from_text(cls, value: object) -> object:
        match = _BITRATE.fullmatch(value) if isinstance(value, str) else None
        return int(match[1]) * _FACTORS[match[2].lower()] if match else value

    @model_validator(mode="after")
    def _options_fit(self) -> FfmpegArgs:
        if self.frames is not None:
            self._check_frames()
        elif self.format in ("jpeg", "png"):
            raise ValueError(f"format '{self.format}' is for frames: say how many")
        elif self.width is not None:
            raise ValueError("width is for frames: say how many")
        else:
            self._check_sound()
        return self

    def _check_frames(self) -> None:
        if self.format is not None and self.format not in _FRAME_FORMATS:
            raise ValueError(f"format '{self.format}' is none for frames; it is one of {', '.join(_FRAME_FORMATS)}")
        of_sound = {"codec": self.codec, "rate": self.rate, "channels": self.channels, "bitrate": self.bitrate}
        for name, value in of_sound.items():
            if value is not None:
                raise ValueError(f"{name} is for sound, and frames asks for none")

    def _check_sound(self) -> None:
        codecs = sounds.CODECS[self.audio_format()]
        codec = self.codec or codecs[0]
        if codec not in codecs:
            raise ValueError(f"format '{self.audio_format()}' has the codecs {', '.join(codecs)}, not {codec}")
        rates = sounds.RATES.get(codec)
        if self.rate is not None and rates and self.rate not in rates:
            raise ValueError(f"{codec} has the rates {', '.join(map(str, rates))}, not {self.rate}")
        most = sounds.CHANNELS_MAX.get(codec)
        if self.channels is not None and most and self.channels > most:
            raise ValueError(f"{codec} has up to {most} channels, not {self.channels}")

    def audio_format(self) -> AudioFormat:
        """The format of the sound."""
        return cast(AudioFormat, self.format or "wav")

    def frame_format(self) -> FrameFormat:
        """The format of the frames."""
        return cast(FrameFormat, self.format or "jpeg")

    def end(self) -> float | None:
        """Where to stop, in seconds of the source."""
        return None if self.duration is None else self.start + self.duration


class Ffmpeg(Transformer):
    """Returns the sound of an audio or video object, or frames of a video. Tags and other metadata stay behind."""

    name = "ffmpeg"
    Args = FfmpegArgs
    releases_gil = True

    def content_type(self, context: Context) -> str:
        """The output format's."""
        args: FfmpegArgs = context.args
        if args.frames is None:
            return sounds.CONTENT_TYPES[args.audio_format()]
        return "binary/octet-stream" if args.frame_format() == "npy" else "application/x-tar"

    def output_extension(self, context: Context) -> str | None:
        """The output format's."""
        args: FfmpegArgs = context.args
        if args.frames is None:
            return args.audio_format()
        return "npy" if args.frame_format() == "npy" else "tar"

    def transform_file(self, path: Path, context: Context) -> Iterator[bytes]:
        """Yield the sound, or frames. Raises Reject for what isn't audio or video."""
        args: FfmpegArgs = context.args
        if args.frames is not None:
            from transom.plugins.builtin.av_frames import framed

            return framed(path, context)
        from transom.plugins.builtin.av_audio import converted

        wanted = Sound(
            args.audio_format(),
            args.codec or sounds.CODECS[args.audio_format()][0],
            args.rate,
            args.channels,
            args.bitrate,
            args.start,
            args.end(),
            args.errors == "skip",
            args.max_output,
        )
        return converted(path, wanted, context)
