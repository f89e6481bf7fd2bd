"""Where an image's pixels go: the arithmetic of crop, resize and fit, without any pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fit = Literal["inside", "outside", "cover", "contain", "fill"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Take `box` of the image, scale it to `scaled`, then cut or pad it around the middle to `canvas`."""

    box: tuple[int, int, int, int]
    scaled: Size
    canvas: Size


def plan(
    size: Size,
    *,
    crop: tuple[int, int, int, int] | None,
    width: int | None,
    height: int | None,
    fit: Fit,
    enlarge: bool,
) -> Plan:
    """Work out the plan for an upright image of `size`; `crop` lies within it."""
    box = crop or (0, 0, *size)
    source = (box[2] - box[0], box[3] - box[1])
    if width is None and height is None:
        return Plan(box, source, source)
    if width is None or height is None:
        scaled = _by_one_side(source, width, height)
        if not enlarge and (scaled[0] > source[0] or scaled[1] > source[1]):
            scaled = source
        return Plan(box, scaled, scaled)
    return _within(box, source, (width, height), fit, enlarge=enlarge)


def _by_one_side(source: Size, width: int | None, height: int | None) -> Size:
    if width is not None:
        return width, _rounded(source[1] * width, source[0])
    assert height is not None
    return _rounded(source[0] * height, source[1]), height


def _within(box: tuple[int, int, int, int], source: Size, asked: Size, fit: Fit, *, enlarge: bool) -> Plan:
    if fit == "fill":
        scaled = asked if enlarge else (min(asked[0], source[0]), min(asked[1], source[1]))
        return Plan(box, scaled, scaled)
    # Comparing cross products keeps it exact: is the image wider than what is asked for?
    wider = source[0] * asked[1] >= source[1] * asked[0]
    by_width = wider if fit in ("inside", "contain") else not wider
    scaled = _by_one_side(source, asked[0], None) if by_width else _by_one_side(source, None, asked[1])
    if not enlarge and (scaled[0] > source[0] or scaled[1] > source[1]):
        scaled = source
    if fit == "contain":
        return Plan(box, scaled, asked)
    if fit == "cover":
        return Plan(box, scaled, (min(asked[0], scaled[0]), min(asked[1], scaled[1])))
    return Plan(box, scaled, scaled)


def _rounded(numerator: int, denominator: int) -> int:
    """Divide, rounding halves up, to at least one pixel."""
    return max(1, (2 * numerator + denominator) // (2 * denominator))
