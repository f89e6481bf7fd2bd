"""Which of torchvision's transforms may be asked for, with which parameters, and how large they may make an image.

A closed list: each is known to take an image to an image, in time and memory that go by its size. It knows no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

MAX_STEPS = 32
MAX_SIDE = 16384

INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")
DTYPES = ("uint8", "float16", "float32", "float64")
POLICIES = ("imagenet", "cifar10", "svhn")
PADDING_MODES = ("constant", "edge", "reflect", "symmetric")

STEPS: Mapping[str, str] = {
    "AugMix": "severity mixture_width chain_depth alpha interpolation fill",
    "AutoAugment": "policy interpolation fill",
    "CenterCrop": "size",
    "ColorJitter": "brightness contrast saturation hue",
    "ConvertImageDtype": "dtype",
    "ElasticTransform": "alpha sigma interpolation fill",
    "GaussianBlur": "kernel_size sigma",
    "GaussianNoise": "mean sigma clip",
    "Grayscale": "num_output_channels",
    "JPEG": "quality",
    "Normalize": "mean std",
    "PILToTensor": "",
    "Pad": "padding fill padding_mode",
    "RGB": "",
    "RandAugment": "num_ops magnitude num_magnitude_bins interpolation fill",
    "RandomAdjustSharpness": "sharpness_factor p",
    "RandomAffine": "degrees translate scale shear interpolation fill center",
    "RandomAutocontrast": "p",
    "RandomCrop": "size padding pad_if_needed fill padding_mode",
    "RandomEqualize": "p",
    "RandomErasing": "p scale ratio value",
    "RandomGrayscale": "p",
    "RandomHorizontalFlip": "p",
    "RandomInvert": "p",
    "RandomPerspective": "distortion_scale p interpolation fill",
    "RandomPhotometricDistort": "brightness contrast saturation hue p",
    "RandomPosterize": "bits p",
    "RandomResizedCrop": "size scale ratio interpolation antialias",
    "RandomRotation": "degrees interpolation expand center fill",
    "RandomSolarize": "threshold p",
    "RandomVerticalFlip": "p",
    "Resize": "size interpolation max_size antialias",
    "ToDtype": "dtype scale",
    "ToImage": "",
    "ToTensor": "",
    "TrivialAugmentWide": "num_magnitude_bins interpolation fill",
}
"""The transforms, with the parameters of each."""

_RANDOM = ("AugMix", "AutoAugment", "ColorJitter", "ElasticTransform", "GaussianBlur", "GaussianNoise", "JPEG",
           "TrivialAugmentWide")  # fmt: skip
_WORDS = {
    "interpolation": INTERPOLATIONS,
    "dtype": DTYPES,
    "policy": POLICIES,
    "padding_mode": PADDING_MODES,
    "value": ("random",),
}
# Parameters that time or memory grow with; any other number is at most a side.
_BOUNDS = {"kernel_size": 31, "sigma": 16, "num_ops": 16, "mixture_width": 8, "chain_depth": 8}
_NUMBERS_MAX = 16
_FOUR = 4

Params = dict[str, JsonValue]
Size = tuple[int, int]


def _as_steps(value: object) -> object:
    """Bring the ways to write steps to one: a list of objects with one key each, in order."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = json.loads(value)
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        return [{name: params or {}} for name, params in value.items()]
    if isinstance(value, Sequence):
        return [{step: {}} if isinstance(step, str) else step for step in value]
    return value


def _check_steps(steps: tuple[dict[str, Params], ...]) -> tuple[dict[str, Params], ...]:
    for step in steps:
        if len(step) != 1:
            raise ValueError("each step of the list names one transform")
        ((name, params),) = step.items()
        if name not in STEPS:
            raise ValueError(f"there is no transform {name!r} to choose; there are {', '.join(STEPS)}")
        for key, value in params.items():
            _check_param(name, key, value)
    return steps


Steps = Annotated[
    tuple[dict[str, Params], ...],
    Field(min_length=1, max_length=MAX_STEPS),
    BeforeValidator(_as_steps),
    AfterValidator(_check_steps),
]


def named(steps: Sequence[Mapping[str, Params]]) -> Iterator[tuple[str, Params]]:
    """Yield each step's transform and its parameters."""
    for step in steps:
        yield from step.items()


def is_random(name: str) -> bool:
    """Tell whether a transform draws random numbers."""
    return name.startswith("Rand") or name in _RANDOM


def grown(name: str, params: Mapping[str, JsonValue], size: Size) -> Size:
    """The largest size, width and height, that a transform may make of an image."""
    width, height = size
    if name == "Resize":
        return _resized(params, size)
    if name == "RandomRotation" and params.get("expand"):
        side = math.ceil(math.hypot(width, height))
        return side, side
    if name in ("CenterCrop", "RandomResizedCrop"):
        return _sides(params.get("size"))
    left, top, right, bottom = _padding(params.get("padding"))
    width, height = width + left + right, height + top + bottom
    if name == "RandomCrop":
        asked = _sides(params.get("size"))
        return max(width, asked[0]), max(height, asked[1])
    return width, height


def _check_param(name: str, key: str, value: JsonValue) -> None:
    if key not in STEPS[name].split():
        known = STEPS[name].replace(" ", ", ") or "none"
        raise ValueError(f"the transform {name} takes no {key!r}; its parameters are: {known}")
    where = f"{key} of {name}"
    if isinstance(value, str):
        words = _WORDS.get(key, ())
        if value not in words:
            raise ValueError(f"{where} is {'one of ' + ', '.join(words) if words else 'no text'}, not {value[:40]!r}")
        return
    items = value if isinstance(value, list) else [value]
    if len(items) > _NUMBERS_MAX or not all(item is None or isinstance(item, int | float) for item in items):
        raise ValueError(f"{where} is a number, or a short list of them")
    bound = _BOUNDS.get(key, MAX_SIDE)
    if not all(abs(item) <= bound for item in items if isinstance(item, int | float)):
        raise ValueError(f"{where} is at most {bound}")
    if key in ("size", "padding") and not all(type(item) is int and item >= 0 for item in items):
        raise ValueError(f"{where} is whole numbers of pixels")


def _numbers(value: Any) -> list[int]:
    return [int(item) for item in (value if isinstance(value, list) else [value])]


def _sides(value: JsonValue) -> Size:
    """Width and height from one number or height and width, as torchvision takes them."""
    sides = _numbers(value or 1)
    return sides[-1], sides[0]


def _resized(params: Mapping[str, JsonValue], size: Size) -> Size:
    sides = _numbers(params.get("size") or 1)
    if len(sides) > 1:
        return sides[1], sides[0]
    scale = sides[0] / min(size)
    longest = params.get("max_size")
    if isinstance(longest, int) and longest:
        scale = min(scale, longest / max(size))
    return math.ceil(size[0] * scale), math.ceil(size[1] * scale)


def _padding(value: JsonValue) -> tuple[int, int, int, int]:
    """Left, top, right, bottom from one, two or four numbers."""
    sides = _numbers(value or 0)
    if len(sides) == _FOUR:
        return sides[0], sides[1], sides[2], sides[3]
    return sides[0], sides[-1], sides[0], sides[-1]
