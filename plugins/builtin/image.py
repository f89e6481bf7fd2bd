"""`image`: decode, turn upright, crop, resize, convert and encode with Pillow; metadata stays behind.

Reading and writing is in `pictures`, the geometry in `image_geometry`, which knows no Pillow.
"""

from __future__ import annotations

from PIL import Image as Pillow
from PIL import ImageColor
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from transom.plugins.builtin import pictures
from transom.plugins.builtin.image_geometry import Fit, Plan, plan
from transom.plugins.contract import Context, Reject, Transformer

MAX_SIDE = 16384


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
    format: pictures.Format = Field(
        default="keep", description="keep goes by the object's Content-Type, then its extension, then takes png."
    )
    quality: int = Field(default=85, ge=1, le=100, description="For jpeg and webp.")
    mode: pictures.Mode = Field(default="keep", description="Colours to convert to.")
    background: str = Field(
        default="white", max_length=40, description="Colour for padding, and under transparency where none can be."
    )
    max_pixels: int = Field(
        default=pictures.MAX_PIXELS,
        ge=1,
        le=pictures.PILLOW_WARNS_ABOVE,
        description="Most pixels of the image, and of the result.",
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
        return pictures.content_type_of(_format(context))

    def output_extension(self, context: Context) -> str | None:
        """The output format's."""
        return pictures.extension_of(_format(context))

    def transform(self, data: bytes, context: Context) -> bytes:
        """Decode, change and encode. Raises Reject for what isn't an image or is too large."""
        args: ImageArgs = context.args
        name = _format(context)
        with pictures.opened(data, args.max_pixels) as image:
            made = _resized(image, args)
        made = pictures.converted(made, name, mode=args.mode, background=args.background)
        return pictures.encoded(made, name, quality=args.quality)


def _format(context: Context) -> str:
    return pictures.output_format(context.args.format, context)


def _resized(image: Pillow.Image, args: ImageArgs) -> Pillow.Image:
    """Decode, as small as the result allows, and bring it to the planned geometry in a plain colour mode."""
    orientation = pictures.orientation(image)
    sideways = orientation in pictures.SIDEWAYS
    upright = (image.height, image.width) if sideways else image.size
    wanted = _planned(upright, args)
    if wanted.box == (0, 0, *upright):
        _draft(image, wanted.scaled[::-1] if sideways else wanted.scaled)
    pictures.load(image)
    drafted = (image.height, image.width) if sideways else image.size
    plain = pictures.plain(pictures.turned(image, orientation))
    box = wanted.box if drafted == upright else (0, 0, *drafted)
    if wanted.scaled != (box[2] - box[0], box[3] - box[1]):
        plain = plain.resize(wanted.scaled, Pillow.Resampling.LANCZOS, box=box, reducing_gap=2.0)
    elif box != (0, 0, *plain.size):
        plain = plain.crop(box)
    return _placed(plain, wanted, args)


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
