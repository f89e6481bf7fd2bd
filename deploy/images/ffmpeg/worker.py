"""Audio in another form, by the ffmpeg program: `{"format": "wav", "rate": 16000, "channels": 1}`, each optional."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from transom.worker import Context, Reject, Worker

_OPTIONS = {"rate": "-ar", "channels": "-ac", "codec": "-c:a", "bit_rate": "-b:a", "filters": "-af"}
_FORMATS = ("aac", "flac", "mp3", "ogg", "opus", "wav")


class Ffmpeg(Worker):
    """One ffmpeg for each object, over files: many formats can't be read or written as a stream."""

    def transform_file(self, path: Path, context: Context) -> Path:
        """Convert one file; what ffmpeg says against it is the client's to read."""
        output = path.with_name(f"output.{_format(context.args)}")
        command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-vn", *_options(context.args), str(output)]
        remaining_s = min(context.remaining_s(), 3600.0)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=remaining_s)
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise Reject(words[-1] if words else f"ffmpeg ended with exit code {done.returncode}")
        return output


def _format(args: Any) -> str:
    name = args.get("format", "wav") if isinstance(args, dict) else args or "wav"
    if name not in _FORMATS:
        raise Reject(f"the format is one of {', '.join(_FORMATS)}, not {name!r}")
    return str(name)


def _options(args: Any) -> list[str]:
    given = {name: value for name, value in args.items() if name != "format"} if isinstance(args, dict) else {}
    for name, value in given.items():
        if name not in _OPTIONS or not isinstance(value, str | int):
            raise Reject(f"there is no option {name!r}" if name not in _OPTIONS else f"{name} is a text or a number")
    return [word for name, value in given.items() for word in (_OPTIONS[name], str(value))]
