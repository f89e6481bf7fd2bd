"""What the generator puts: reproducible bytes for each key, and JPEG photos for the image transform.

It knows nothing of requests. Everything follows from a seed, so every process, and a later run, has the same bytes.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

STRIDE = 61  # odd and prime: no object is another one shifted by whole words
PHOTO_PATTERNS = 8
UNITS = {
    "": 1, "b": 1,
    "k": 2**10, "kib": 2**10, "kb": 10**3,
    "m": 2**20, "mib": 2**20, "mb": 10**6,
    "g": 2**30, "gib": 2**30, "gb": 10**9,
}  # fmt: skip


def parse_size(text: str) -> int:
    """Bytes from `4096`, `4KiB`, `4k` (binary) or `4KB` (decimal); raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    if not match or match[2].lower() not in UNITS:
        raise ValueError(f"not a size: {text!r} (4096, 4KiB, 1.5MiB, 10MB)")
    return int(float(match[1]) * UNITS[match[2].lower()])


def parse_duration_s(text: str) -> float:
    """Seconds from `5`, `5s`, `500ms`, `2m` or `1h`; raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", text.strip())
    if not match:
        raise ValueError(f"not a duration: {text!r} (5s, 500ms, 2m)")
    return float(match[1]) * {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def parse_pixels(text: str) -> tuple[int, int]:
    """Width and height from `1024x768`; raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text.strip())
    if not match:
        raise ValueError(f"not a picture size: {text!r} (1024x768)")
    return int(match[1]), int(match[2])


@dataclass(frozen=True, slots=True)
class Blob:
    """One object's bytes, as a window on a pool that many share."""

    pool: bytes
    start: int
    length: int

    def view(self) -> memoryview:
        """The bytes, not copied."""
        return memoryview(self.pool)[self.start : self.start + self.length]


@lru_cache(maxsize=2)
def random_blobs(size: int, count: int, seed: int) -> Sequence[Blob]:
    """`count` objects of `size` random bytes, pairwise different; memory is that of one object."""
    pool = random.Random(seed).randbytes(size + STRIDE * (count - 1))  # noqa: S311 - data, not secrets
    return [Blob(pool, STRIDE * index, size) for index in range(count)]


@lru_cache(maxsize=2)
def photo_blobs(width: int, height: int, count: int, seed: int) -> Sequence[Blob]:
    """`count` JPEG photos, pairwise different bytes: a few patterns, each with a comment that numbers it."""
    patterns = photos(width, height, min(count, PHOTO_PATTERNS), seed)
    blobs = []
    for index in range(count):
        jpeg = _with_comment(patterns[index % len(patterns)], f"photo {index}".encode())
        blobs.append(Blob(jpeg, 0, len(jpeg)))
    return blobs


def photos(width: int, height: int, count: int, seed: int) -> Sequence[bytes]:
    """Pictures that decode and compress like photos: coloured gradients under grain. Needs Pillow."""
    generator = random.Random(seed)  # noqa: S311 - data, not secrets
    return [_photo(width, height, generator) for _ in range(count)]


def _photo(width: int, height: int, generator: random.Random) -> bytes:
    from PIL import Image, ImageChops

    gradients = (Image.linear_gradient("L"), Image.radial_gradient("L"))
    bands = [
        generator.choice(gradients).rotate(generator.randrange(0, 360, 15)).resize((width, height)) for _ in range(3)
    ]
    picture = ImageChops.add(Image.merge("RGB", bands), _grain(width, height, generator), scale=1, offset=-96)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88)
    return out.getvalue()


def _grain(width: int, height: int, generator: random.Random) -> Image.Image:
    """Noise at half the resolution, as from a real sensor and lens: neighbours are alike."""
    from PIL import Image

    size = (max(1, width // 2), max(1, height // 2))
    noise = Image.frombytes("L", size, generator.randbytes(size[0] * size[1])).point([64 + v // 4 for v in range(256)])
    return noise.resize((width, height), Image.Resampling.BICUBIC).convert("RGB")


def _with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """The same picture with a COM segment after its start marker (ITU T.81, B.2.4.5)."""
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
