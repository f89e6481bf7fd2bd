"""`split_audio`: one piece of a recording, exact to the sample.

What it declares is here; the work is in `av_audio`, which is imported by the first run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from transom.plugins.builtin import sounds
from transom.plugins.builtin.sounds import Sound
from transom.plugins.contract import Context, Transformer


class SplitAudioArgs(BaseModel):
    """Arguments of `split_audio`; they have the names that NeMo's splitter gave them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_time: float = Field(default=0.0, ge=0, le=1e7, description="Where the piece begins, in seconds.")
    to_time: float | None = Field(
        default=None, gt=0, le=1e7, description="Where it ends, in seconds; what lies there is left out."
    )
    format: Literal["wav", "flac", "mp3", "ogg", "opus"] = Field(
        default="wav",
        validation_alias=AliasChoices("format", "audio_format"),
        description="wav and flac lose nothing; mp3 and opus (ogg is opus) go by whole frames.",
    )

    @model_validator(mode="after")
    def _times_make_a_piece(self) -> SplitAudioArgs:
        if self.to_time is not None and self.to_time <= self.from_time:
            raise ValueError("to_time must be after from_time")
        return self


class SplitAudio(Transformer):
    """Returns a piece of a recording, at its own rate and with its own channels."""

    name = "split_audio"
    Args = SplitAudioArgs
    releases_gil = True

    def content_type(self, context: Context) -> str:
        """The output format's."""
        return sounds.CONTENT_TYPES[context.args.format]

    def output_extension(self, context: Context) -> str | None:
        """The output format's."""
        extension: str = context.args.format
        return extension

    def transform_file(self, path: Path, context: Context) -> Iterator[bytes]:
        """Yield the piece. Raises Reject for what isn't audio, or has no such piece."""
        from transom.plugins.builtin.av_audio import converted

        args: SplitAudioArgs = context.args
        wanted = Sound(
            args.format,
            sounds.CODECS[args.format][0],
            start_s=args.from_time,
            end_s=args.to_time,
            max_output=sounds.MAX_OUTPUT,
        )
        return converted(path, wanted, context)
