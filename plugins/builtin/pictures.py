"""Opens images within bounds, turns them upright, and writes them: what the transformers of pictures share.

Pixels are bounded before they are decoded, and metadata stays behind. It knows nothing of what is done to a picture.
"""

from __future__ import annotations

import io
import struct
from pathlib import PurePosixPath
from typing import Any, Literal

from PIL import Image as Pillow
from PIL import ImageCms, ImageColor, UnidentifiedImageError

from transom.plugins.contract import Context, Reject

PILLOW_WARNS_ABOVE = 89_478_485  # Pillow's own default bound, 1 GiB / 4 / 3
MAX_PIXELS = 64_000_000

Format = Literal["keep", "jpeg", "png", "webp", "gif", "tiff", "bmp"]
Mode = Literal["keep", "rgb", "rgba", "grey"]

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
SIDEWAYS = (5, 6, 7, 8)  # the orientations that swap width and height

# What Pillow's decoders raise on bad input, as found by fuzzing them; all of them mean "not a good image".
_BAD_INPUT = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, NotImplementedError,
    struct.error, Pillow.DecompressionBombError, Warning,  # the last where warnings are made errors
)  # fmt: skip


def output_format(wanted: str, context: Context) -> str:
    """Name the output's format without looking at the object's bytes; "keep" goes by what is said of the object."""
    if wanted != "keep":
        return wanted
    content_type = context.content_type.partition(";")[0].strip().lower()
    extension = PurePosixPath(context.key).suffix.lower().removeprefix(".")
    return _BY_TYPE.get(content_type) or _BY_EXTENSION.get(extension) or "png"


def content_type_of(name: str) -> str:
    """A format's Content-Type."""
    return _CONTENT_TYPES[name]


def extension_of(name: str) -> str:
    """A format's usual extension."""
    return _EXTENSIONS.get(name, name)


def opened(data: bytes, max_pixels: int) -> Pillow.Image:
    """Open an image without decoding it. Raises Reject for what is none, or has too many pixels."""
    try:
        image = Pillow.open(io.BytesIO(data), formats=_READABLE)
    except _BAD_INPUT as error:
        raise Reject(f"not a readable image: {_cause(error)}") from error
    if image.width * image.height > max_pixels:
        raise Reject(f"the image has {image.width}x{image.height} pixels, more than {max_pixels} (max_pixels)")
    return image


def load(image: Pillow.Image) -> None:
    """Decode. Raises Reject for a damaged image."""
    try:
        image.load()
    except _BAD_INPUT as error:
        raise Reject(f"a damaged image: {_cause(error)}") from error


def upright(data: bytes, max_pixels: int) -> Pillow.Image:
    """Return an image decoded and turned upright, in a plain colour mode. Raises Reject."""
    with opened(data, max_pixels) as image:
        turn = orientation(image)
        load(image)
        return plain(turned(image, turn))


def orientation(image: Pillow.Image) -> int:
    """Read which of EXIF's eight ways the image is stored in; 1 is upright."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BAD_INPUT:
        return 1  # a broken EXIF block does not make the pixels bad


def turned(image: Pillow.Image, stored: int) -> Pillow.Image:
    """Turn an image upright that is stored in that orientation."""
    return image.transpose(_TURNS[stored]) if stored in _TURNS else image


def plain(image: Pillow.Image) -> Pillow.Image:
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


def converted(image: Pillow.Image, name: str, *, mode: Mode = "keep", background: str = "white") -> Pillow.Image:
    """Bring a plain image to a colour mode that the format has; `background` shows where it has no transparency."""
    target = {"rgb": "RGB", "rgba": "RGBA", "grey": "L"}.get(mode, image.mode)
    has_alpha = image.mode in ("LA", "RGBA")
    if name in _WITHOUT_ALPHA and target in ("LA", "RGBA"):
        target = "L" if target == "LA" else "RGB"
    if has_alpha and target not in ("LA", "RGBA"):
        under = Pillow.new("RGBA", image.size, ImageColor.getcolor(background, "RGBA"))
        under.alpha_composite(image.convert("RGBA"))
        image = under.convert("RGB")
    return image if image.mode == target else image.convert(target)


def encoded(image: Pillow.Image, name: str, *, quality: int) -> bytes:
    """Write an image; `quality` is for jpeg and webp. Raises Reject for a size that the format doesn't have."""
    if type(image) is not Pillow.Image:
        image = image.copy()  # an opened file as it is still has its tags, and encoders write them
    image.info = {}  # so they do with profiles, comments and dates here
    options: dict[str, Any] = {"quality": quality} if name in ("jpeg", "webp") else {}
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
