"""`image`: decode, turn upright, crop, resize, convert and encode with Pillow; metadata stays behind.

Pixels are bounded before they are decoded. The geometry is in `image_geometry`, which knows no Pillow.
"""

from __future__ import annotations

import io
import struct
from pathlib import PurePosixPath
from typing import Any, Literal

from PIL import Image as Pillow
from PIL import ImageCms, ImageColor, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from transom.plugins.builtin.image_geometry import Fit, Plan, plan
from transom.plugins.contract import Context, Reject, Transformer

MAX_SIDE = 16384
PILLOW_WARNS_ABOVE = 89_478_485  # Pillow's own default bound, 1 GiB / 4 / 3

_READABLE = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "ICO")  # never EPS: it starts Ghostscript
_CONTENT_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
}
_EXTENSIONS = {"jpeg": "jpg", "tiff": "tif"}
_BY_TYPE = {content_type: name for name, content_type in _CONTENT_TYPES.items()} | {"image/jpg": "jpeg"}
_BY_EXTENSION = {name: name for name in _CONTENT_TYPES} | {"jpg": "jpeg", "tif": "tiff", "jpe": "jpeg"}
_WITHOUT_ALPHA = ("jpeg", "bmp")
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # the orientations that swap width and height

# What Pillow's decoders raise on bad input, as found by fuzzing them; all of them mean "not a good image".
_BAD_INPUT = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, NotImplementedError,
    struct.error, Pillow.DecompressionBombError, Warning,  # the last where warnings are made errors
)  # fmt: skip


class ImageArgs(BaseModel):
    """Arguments of `image`; crop comes before resize, both after turning the image upright."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int | None = Field(
        default=None, ge=1, le=MAX_SIDE, description="Pixels; alone, height follows.", json_schema_extra={"first": True}
    )
    height: int | None = Field(default=None, ge=1, le=MAX_SIDE, description="Pixels; alone, width follows.")
    fit: Fit = Field(
        default="inside",
        description="With both sides given. inside: as large as fits; outside: as small as covers; cover: fill the "
        "box, cut what hangs over; contain: as large as fits, padded to the box; fill: stretch.",
    )
    enlarge: bool = Field(default=True, description="Let the result have more pixels than the image.")
    crop: tuple[int, int, int, int] | None = Field(default=None, description="Box of left, top, right, bottom.")
    format: Literal["keep", "jpeg", "png", "webp", "gif", "tiff", "bmp"] = Field(
        default="keep", description="keep goes by the object's Content-Type, then its extension, then takes png."
    )
    quality: int = Field(default=85, ge=1, le=100, description="For jpeg and webp.")
    mode: Literal["keep", "rgb", "rgba", "grey"] = Field(default="keep", description="Colours to convert to.")
    background: str = Field(
        default="white", max_length=40, description="Colour for padding, and under transparency where none can be."
    )
    max_pixels: int = Field(
        default=64_000_000, ge=1, le=PILLOW_WARNS_ABOVE, description="Most pixels of the image, and of the result."
    )

    @field_validator("background")
    @classmethod
    def _background_is_a_colour(cls, colour: str) -> str:
        ImageColor.getrgb(colour)
        return colour

    @model_validator(mode="after")
    def _crop_is_a_box(self) -> ImageArgs:
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right and 0 <= top < bottom):
                raise ValueError("crop must be left, top, right, bottom with left < right and top < bottom")
        return self


class Image(Transformer):
    """Returns the image cropped, resized and converted; the first frame of an animated one."""

    name = "image"
    Args = ImageArgs
    releases_gil = True

    def content_type(self, context: Context) -> str:
        """The output format's."""
        return _CONTENT_TYPES[output_format(context)]

    def output_extension(self, context: Context) -> str | None:
        """The output format's."""
        name = output_format(context)
        return _EXTENSIONS.get(name, name)

    def transform(self, data: bytes, context: Context) -> bytes:
        """Decode, change and encode. Raises Reject for what isn't an image or is too large."""
        args: ImageArgs = context.args
        name = output_format(context)
        with _opened(data, args) as image:
            made = _resized(image, args)
        return _encoded(_converted(made, args, name), args, name)


def output_format(context: Context) -> str:
    """Name the output's format without looking at the object's bytes."""
    wanted: str = context.args.format
    if wanted != "keep":
        return wanted
    content_type = context.content_type.partition(";")[0].strip().lower()
    extension = PurePosixPath(context.key).suffix.lower().removeprefix(".")
    return _BY_TYPE.get(content_type) or _BY_EXTENSION.get(extension) or "png"


def _opened(data: bytes, args: ImageArgs) -> Pillow.Image:
    try:
        image = Pillow.open(io.BytesIO(data), formats=_READABLE)
    except _BAD_INPUT as error:
        raise Reject(f"not a readable image: {_cause(error)}") from error
    if image.width * image.height > args.max_pixels:
        raise Reject(f"the image has {image.width}x{image.height} pixels, more than {args.max_pixels} (max_pixels)")
    return image


def _resized(image: Pillow.Image, args: ImageArgs) -> Pillow.Image:
    """Decode, as small as the result allows, and bring it to the planned geometry in a plain colour mode."""
    orientation = _orientation(image)
    upright = image.size if orientation not in _SIDEWAYS else (image.height, image.width)
    wanted = _planned(upright, args)
    if wanted.box == (0, 0, *upright):
        _draft(image, wanted.scaled if orientation not in _SIDEWAYS else wanted.scaled[::-1])
    try:
        image.load()
    except _BAD_INPUT as error:
        raise Reject(f"a damaged image: {_cause(error)}") from error
    drafted = image.size if orientation not in _SIDEWAYS else (image.height, image.width)
    plain = _plain(image.transpose(_TURNS[orientation]) if orientation in _TURNS else image)
    box = wanted.box if drafted == upright else (0, 0, *drafted)
    if wanted.scaled != (box[2] - box[0], box[3] - box[1]):
        plain = plain.resize(wanted.scaled, Pillow.Resampling.LANCZOS, box=box, reducing_gap=2.0)
    elif box != (0, 0, *plain.size):
        plain = plain.crop(box)
    return _placed(plain, wanted, args)


def _orientation(image: Pillow.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BAD_INPUT:
        return 1  # a broken EXIF block does not make the pixels bad


def _planned(size: tuple[int, int], args: ImageArgs) -> Plan:
    if args.crop is not None and (args.crop[2] > size[0] or args.crop[3] > size[1]):
        raise Reject(f"the crop box {args.crop} lies outside of the image's {size[0]}x{size[1]} pixels")
    wanted = plan(size, crop=args.crop, width=args.width, height=args.height, fit=args.fit, enlarge=args.enlarge)
    for width, height in (wanted.scaled, wanted.canvas):
        if width * height > args.max_pixels or max(width, height) > 4 * MAX_SIDE:
            raise Reject(f"the result would have {width}x{height} pixels, more than {args.max_pixels} (max_pixels)")
    return wanted


def _draft(image: Pillow.Image, scaled: tuple[int, int]) -> None:
    """Let the JPEG decoder shrink by 2, 4 or 8 while it decodes, keeping twice the result for the filter."""
    if image.format == "JPEG" and scaled[0] * 2 <= image.width and scaled[1] * 2 <= image.height:
        image.draft(None, (scaled[0] * 2, scaled[1] * 2))


def _plain(image: Pillow.Image) -> Pillow.Image:
    """Bring any colour mode to L, LA, RGB or RGBA in sRGB; filters and encoders take these."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        image = _in_srgb(image, profile)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bits(image)
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image.convert(f"{image.mode}A") if "transparency" in image.info and image.mode in ("L", "RGB") else image
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if "transparency" in image.info or image.mode in ("PA", "RGBa", "La") else "RGB")


def _in_srgb(image: Pillow.Image, profile: bytes) -> Pillow.Image:
    """Convert to sRGB, since the profile itself is dropped; a broken profile is passed over."""
    mode: Any = "L" if image.mode == "L" else "RGB"
    if mode == "L":
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if converted is None else converted


def _eight_bits(image: Pillow.Image) -> Pillow.Image:
    """Scale 16-bit grey down; wider and float samples are clipped, having no range of their own."""
    if image.mode == "F":
        return image.convert("L")
    return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")


def _placed(image: Pillow.Image, wanted: Plan, args: ImageArgs) -> Pillow.Image:
    """Cut or pad the scaled image to its canvas, in the middle."""
    if wanted.canvas == image.size:
        return image
    left, top = ((have - want) // 2 for have, want in zip(image.size, wanted.canvas, strict=True))
    if left >= 0 and top >= 0:
        return image.crop((left, top, left + wanted.canvas[0], top + wanted.canvas[1]))
    canvas = Pillow.new(image.mode, wanted.canvas, ImageColor.getcolor(args.background, image.mode))
    canvas.paste(image, (-left, -top))
    return canvas


def _converted(image: Pillow.Image, args: ImageArgs, name: str) -> Pillow.Image:
    target = {"rgb": "RGB", "rgba": "RGBA", "grey": "L"}.get(args.mode, image.mode)
    has_alpha = image.mode in ("LA", "RGBA")
    if name in _WITHOUT_ALPHA and target in ("LA", "RGBA"):
        target = "L" if target == "LA" else "RGB"
    if has_alpha and target not in ("LA", "RGBA"):
        under = Pillow.new("RGBA", image.size, ImageColor.getcolor(args.background, "RGBA"))
        under.alpha_composite(image.convert("RGBA"))
        image = under.convert("RGB")
    return image if image.mode == target else image.convert(target)


def _encoded(image: Pillow.Image, args: ImageArgs, name: str) -> bytes:
    if type(image) is not Pillow.Image:
        image = image.copy()  # an opened file as it is still has its tags, and encoders write them
    image.info = {}  # so they do with profiles, comments and dates here
    options: dict[str, Any] = {"quality": args.quality} if name in ("jpeg", "webp") else {}
    output = io.BytesIO()
    try:
        image.save(output, name.upper(), **options)
    except (OSError, ValueError, struct.error) as error:
        raise Reject(f"{image.width}x{image.height} pixels can't be written as {name}: {_cause(error)}") from error
    return output.getvalue()


def _cause(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known format"
    return str(error)[:200] or type(error).__name__
