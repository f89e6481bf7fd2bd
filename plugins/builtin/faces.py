"""`faces`: finds faces with the Haar cascades that come with OpenCV, and boxes, hides, cuts out or lists them.

Reading and writing is in `pictures`. OpenCV is imported when the first object comes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw, ImageFilter
from pydantic import BaseModel, ConfigDict, Field, field_validator

from transom.plugins.builtin import pictures
from transom.plugins.contract import Context, Skip, Transformer

if TYPE_CHECKING:
    import cv2

Cascade = Literal["default", "alt", "alt2", "profile"]
_FILES: Mapping[Cascade, str] = {
    "default": "haarcascade_frontalface_default.xml",
    "alt": "haarcascade_frontalface_alt.xml",
    "alt2": "haarcascade_frontalface_alt2.xml",
    "profile": "haarcascade_profileface.xml",
}
_BLOCKS = 8  # across a pixelated face: few enough that nobody is known by them
_BLUR = 0.25  # of a face's shorter side: likewise
_LINES_PER_IMAGE = 300  # a box is as thick as the image's longer side divided by this


class FacesArgs(BaseModel):
    """Arguments of `faces`; sizes are in pixels of the image once upright."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["box", "blur", "pixelate", "crop", "json"] = Field(
        default="box",
        description="box: draw boxes; blur, pixelate: make faces unrecognisable; crop: the largest face alone, 404 if "
        "there is none; json: where the faces are.",
        json_schema_extra={"first": True},
    )
    margin: float = Field(default=0.0, ge=-0.4, le=2.0, description="Grow the found boxes by this share on each side.")
    color: str = Field(default="lime", max_length=40, description="Colour of the boxes.")
    thickness: int | None = Field(default=None, ge=1, le=200, description="Of the boxes' lines; by default it fits.")
    cascade: Cascade = Field(default="default", description="Which of OpenCV's cascades; profile finds side views.")
    min_size: int = Field(default=24, ge=1, le=16384, description="Smallest face, from side to side.")
    neighbors: int = Field(default=5, ge=1, le=100, description="More finds fewer faces, more surely.")
    step: float = Field(default=1.1, ge=1.05, le=2.0, description="Ratio between the sizes tried; less finds more.")
    detail: int = Field(
        default=1280, ge=64, le=4096, description="Longest side that is searched; larger images are made smaller first."
    )
    format: pictures.Format = Field(
        default="keep", description="keep goes by the object's Content-Type, then its extension, then takes png."
    )
    quality: int = Field(default=85, ge=1, le=100, description="For jpeg and webp.")
    max_pixels: int = Field(
        default=pictures.MAX_PIXELS, ge=1, le=pictures.PILLOW_WARNS_ABOVE, description="Most pixels of the image."
    )

    @field_validator("color")
    @classmethod
    def _color_is_one(cls, color: str) -> str:
        ImageColor.getrgb(color)
        return color


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Where a face is; order is by place, from the top."""

    top: int
    left: int
    width: int
    height: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom; the last two are outside."""
        return self.left, self.top, self.left + self.width, self.top + self.height


class Faces(Transformer):
    """Returns an image with its faces boxed, blurred or pixelated, the largest one alone, or where they are as JSON.

    It finds most faces seen from the front, misses some, and takes a few other things for faces: fit for a preview, not
    to promise privacy.
    """

    name = "faces"
    Args = FacesArgs
    releases_gil = True

    def __init__(self) -> None:
        self._local = threading.local()  # a cascade holds state while it searches: one for each thread
        self._loading = threading.Lock()  # OpenCV can't be imported by two threads at once

    def content_type(self, context: Context) -> str:
        """JSON, or the output format's."""
        return "application/json" if context.args.mode == "json" else pictures.content_type_of(_format(context))

    def output_extension(self, context: Context) -> str | None:
        """JSON's, or the output format's."""
        return "json" if context.args.mode == "json" else pictures.extension_of(_format(context))

    def transform(self, data: bytes, context: Context) -> bytes:
        """Find and show. Raises Reject for what isn't an image or is too large, Skip with no face to crop."""
        args: FacesArgs = context.args
        image = pictures.upright(data, args.max_pixels)
        boxes = [_grown(box, args.margin, image.size) for box in self._found(image, args)]
        if args.mode == "json":
            return _listed(boxes, image.size)
        name = _format(context)
        made = _CHANGES[args.mode](image.copy(), boxes, args)
        return pictures.encoded(pictures.converted(made, name), name, quality=args.quality)

    def _found(self, image: Pillow.Image, args: FacesArgs) -> list[Box]:
        import numpy as np

        scale = min(1.0, args.detail / max(image.size))
        grey = image.convert("RGB").convert("L") if image.mode != "L" else image
        if scale < 1:
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            grey = grey.resize(size, Pillow.Resampling.BILINEAR, reducing_gap=2.0)
        smallest = max(1, round(args.min_size * scale))
        found = self._cascade(args.cascade).detectMultiScale(
            np.asarray(grey), scaleFactor=args.step, minNeighbors=args.neighbors, minSize=(smallest, smallest)
        )
        return sorted(Box(*(round(int(side) / scale) for side in (y, x, w, h))) for x, y, w, h in found)

    def _cascade(self, name: Cascade) -> cv2.CascadeClassifier:
        found: cv2.CascadeClassifier | None = getattr(self._local, name, None)
        if found is None:
            with self._loading:
                import cv2
                import cv2.data

                cv2.setNumThreads(1)  # objects run side by side already; and threads find boxes in no fixed order
                found = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / _FILES[name]))
            setattr(self._local, name, found)
        return found


def _format(context: Context) -> str:
    return pictures.output_format(context.args.format, context)


def _grown(box: Box, margin: float, size: tuple[int, int]) -> Box:
    """Grow a box, or shrink it, as far as the image goes."""
    more_x, more_y = round(box.width * margin), round(box.height * margin)
    left, top = max(0, box.left - more_x), max(0, box.top - more_y)
    right, bottom = min(size[0], box.left + box.width + more_x), min(size[1], box.top + box.height + more_y)
    return Box(top, left, max(1, right - left), max(1, bottom - top))


def _listed(boxes: Sequence[Box], size: tuple[int, int]) -> bytes:
    faces = [{"left": box.left, "top": box.top, "width": box.width, "height": box.height} for box in boxes]
    return json.dumps({"width": size[0], "height": size[1], "faces": faces}, separators=(",", ":")).encode()


def _boxed(image: Pillow.Image, boxes: Sequence[Box], args: FacesArgs) -> Pillow.Image:
    colored = image.convert("RGBA" if image.mode in ("LA", "RGBA") else "RGB")
    thickness = args.thickness or max(1, max(image.size) // _LINES_PER_IMAGE)
    pen = ImageDraw.Draw(colored)
    for box in boxes:
        left, top, right, bottom = box.corners
        pen.rectangle((left, top, right - 1, bottom - 1), outline=args.color, width=thickness)
    return colored


def _hidden(
    image: Pillow.Image, boxes: Sequence[Box], _: FacesArgs, *, hide: Callable[[Pillow.Image], Pillow.Image]
) -> Pillow.Image:
    for box in boxes:
        image.paste(hide(image.crop(box.corners)), box.corners)
    return image


def _blurred(face: Pillow.Image) -> Pillow.Image:
    return face.filter(ImageFilter.GaussianBlur(max(2.0, min(face.size) * _BLUR)))


def _pixelated(face: Pillow.Image) -> Pillow.Image:
    across = (min(_BLOCKS, face.width), min(_BLOCKS, face.height))
    return face.resize(across, Pillow.Resampling.BOX).resize(face.size, Pillow.Resampling.NEAREST)


def _cropped(image: Pillow.Image, boxes: Sequence[Box], _: FacesArgs) -> Pillow.Image:
    if not boxes:
        raise Skip("no face is found in the image")
    return image.crop(max(boxes, key=lambda box: box.width * box.height).corners)


_CHANGES: Mapping[str, Callable[[Pillow.Image, Sequence[Box], FacesArgs], Pillow.Image]] = {
    "box": _boxed,
    "blur": partial(_hidden, hide=_blurred),
    "pixelate": partial(_hidden, hide=_pixelated),
    "crop": _cropped,
}
