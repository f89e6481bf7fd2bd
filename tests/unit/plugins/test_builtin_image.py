"""image puts the right pixels in the right place, drops metadata, and rejects what is bad or too large."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from transom.plugins import Context, Reject
from transom.plugins.args import parse_args
from transom.plugins.builtin.image import Image
from transom.plugins.builtin.image_geometry import Plan, plan
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(width: int = 80, height: int = 40) -> Pillow.Image:
    """Red, green over blue, white."""
    image = Pillow.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def saved(image: Pillow.Image, name: str = "PNG", **options: Any) -> bytes:
    output = io.BytesIO()
    image.save(output, name, **options)
    return output.getvalue()


def read(data: bytes) -> Pillow.Image:
    image = Pillow.open(io.BytesIO(data))
    image.load()
    return image


def corners(image: Pillow.Image) -> list[Any]:
    image = image.convert("RGB")
    width, height = image.size
    near = [(2, 2), (width - 3, 2), (2, height - 3), (width - 3, height - 3)]
    return [image.getpixel(at) for at in near]


def close(got: list[Any], expected: list[Any], within: int = 12) -> bool:
    return all(
        abs(a - b) <= within for one, two in zip(got, expected, strict=True) for a, b in zip(one, two, strict=True)
    )


PNG = saved(quarters())
ALL_FOUR: list[Any] = [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((80, 40), {}, Plan((0, 0, 80, 40), (80, 40), (80, 40))),
        ((80, 40), {"width": 20}, Plan((0, 0, 80, 40), (20, 10), (20, 10))),
        ((80, 40), {"height": 20}, Plan((0, 0, 80, 40), (40, 20), (40, 20))),
        ((80, 40), {"width": 160}, Plan((0, 0, 80, 40), (160, 80), (160, 80))),
        ((80, 40), {"width": 160, "enlarge": False}, Plan((0, 0, 80, 40), (80, 40), (80, 40))),
        ((80, 40), {"width": 20, "height": 20}, Plan((0, 0, 80, 40), (20, 10), (20, 10))),
        ((80, 40), {"width": 20, "height": 20, "fit": "outside"}, Plan((0, 0, 80, 40), (40, 20), (40, 20))),
        ((80, 40), {"width": 20, "height": 20, "fit": "cover"}, Plan((0, 0, 80, 40), (40, 20), (20, 20))),
        ((80, 40), {"width": 20, "height": 20, "fit": "contain"}, Plan((0, 0, 80, 40), (20, 10), (20, 20))),
        ((80, 40), {"width": 20, "height": 20, "fit": "fill"}, Plan((0, 0, 80, 40), (20, 20), (20, 20))),
        ((40, 80), {"width": 20, "height": 20}, Plan((0, 0, 40, 80), (10, 20), (10, 20))),
        ((40, 80), {"width": 20, "height": 20, "fit": "cover"}, Plan((0, 0, 40, 80), (20, 40), (20, 20))),
        (
            (80, 40),
            {"width": 99, "height": 99, "fit": "cover", "enlarge": False},
            Plan((0, 0, 80, 40), (80, 40), (80, 40)),
        ),
        (
            (80, 40),
            {"width": 99, "height": 20, "fit": "fill", "enlarge": False},
            Plan((0, 0, 80, 40), (80, 20), (80, 20)),
        ),
        ((80, 40), {"crop": (10, 0, 30, 40)}, Plan((10, 0, 30, 40), (20, 40), (20, 40))),
        ((80, 40), {"crop": (10, 0, 30, 40), "width": 10}, Plan((10, 0, 30, 40), (10, 20), (10, 20))),
        ((1000, 1), {"width": 10}, Plan((0, 0, 1000, 1), (10, 1), (10, 1))),
        ((3, 2), {"width": 4}, Plan((0, 0, 3, 2), (4, 3), (4, 3))),
        ((333, 1000), {"height": 500}, Plan((0, 0, 333, 1000), (167, 500), (167, 500))),
    ],
)
def test_the_plan_is_as_worked_out_by_hand(size: tuple[int, int], asked: dict[str, Any], expected: Plan) -> None:
    given: dict[str, Any] = {"crop": None, "width": None, "height": None, "fit": "inside", "enlarge": True}
    assert plan(size, **{**given, **asked}) == expected


@pytest.mark.parametrize(
    ("args", "size", "pixels"),
    [
        (None, (80, 40), ALL_FOUR),
        (40, (40, 20), ALL_FOUR),
        ({"width": 160}, (160, 80), ALL_FOUR),
        ({"width": 20, "height": 40, "fit": "fill"}, (20, 40), ALL_FOUR),
        ({"width": 40, "height": 40, "fit": "cover"}, (40, 40), ALL_FOUR),
        ({"width": 40, "height": 40, "fit": "contain", "background": "black"}, (40, 40), [(0, 0, 0)] * 4),
        ({"crop": [0, 0, 40, 20]}, (40, 20), [RED] * 4),
        ({"crop": [40, 0, 80, 40], "width": 10}, (10, 10), [GREEN, GREEN, WHITE, WHITE]),
        ({"crop": [30, 0, 50, 20], "width": 40, "height": 40}, (40, 40), [RED, GREEN, RED, GREEN]),
    ],
)
def test_pixels_are_in_their_place(run: Run, args: object, size: tuple[int, int], pixels: list[Any]) -> None:
    image = read(run(Image(), PNG, args))
    assert image.format == "PNG"
    assert image.size == size
    assert close(corners(image), pixels)


def test_padding_is_around_the_middle(run: Run) -> None:
    image = read(run(Image(), PNG, {"width": 40, "height": 40, "fit": "contain", "background": "#000"})).convert("RGB")
    assert [image.getpixel((20 - 5, y)) for y in (5, 12, 27, 34)] == [(0, 0, 0), RED, BLUE, (0, 0, 0)]


def test_a_png_that_stays_as_it_is_keeps_every_pixel(run: Run) -> None:
    noise = Pillow.frombytes("RGBA", (16, 16), os.urandom(1024))
    assert read(run(Image(), saved(noise))).tobytes() == noise.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("args", [None, {"width": 40, "height": 20, "fit": "fill"}, {"crop": [0, 0, 80, 40]}])
def test_the_image_is_turned_upright(run: Run, orientation: int, args: object) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that stores it so
    stored = quarters()
    if orientation in undo:
        stored = stored.transpose(Pillow.Transpose(undo[orientation]))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    made = read(run(Image(), saved(stored, "JPEG", exif=exif, quality=95), args, content_type="image/jpeg"))
    assert made.size == ((40, 20) if args and "width" in str(args) else (80, 40))
    assert close(corners(made), ALL_FOUR, within=20)
    assert not made.getexif()


def test_a_large_jpeg_turned_and_shrunk_has_the_right_size(run: Run) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    data = saved(quarters(1603, 1201).transpose(Pillow.Transpose.ROTATE_90), "JPEG", exif=exif)
    made = read(run(Image(), data, 100, key="a.jpg"))
    assert made.size == (100, 75)
    assert close(corners(made), ALL_FOUR, within=20)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_metadata_is_dropped(run: Run, name: str) -> None:
    exif = Pillow.Exif()
    exif[0x010E] = "secret place"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options: dict[str, Any] = {"exif": exif, "icc_profile": profile} if name != "GIF" else {"comment": b"secret place"}
    data = saved(quarters(), name, **options)
    assert b"secret place" in data
    for args in ({}, {"width": 20}, {"format": "png"}):
        made = run(Image(), data, args, content_type=f"image/{name.lower()}")
        assert b"secret place" not in made
        assert not {"exif", "icc_profile", "comment", "xmp"} & set(read(made).info)


def test_colours_of_another_profile_become_srgb(run: Run) -> None:
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.createProfile("sRGB")
    assert lab
    profile = ImageCms.ImageCmsProfile(srgb).tobytes()
    made = read(run(Image(), saved(quarters(), icc_profile=profile)))
    assert close(corners(made), ALL_FOUR, within=2)
    broken = read(run(Image(), saved(quarters(), icc_profile=b"not a profile" * 20)))
    assert close(corners(broken), ALL_FOUR, within=0)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("1", "L"), ("P", "RGB"), ("I;16", "L")],
)
def test_every_colour_mode_is_read(run: Run, mode: str, expected: str) -> None:
    image = Pillow.new(mode, (20, 10)) if mode == "I;16" else quarters(20, 10).convert(mode)
    made = read(run(Image(), saved(image), 10))
    assert (made.size, made.mode) == ((10, 5), expected)


def test_sixteen_bit_grey_is_scaled_down(run: Run) -> None:
    image = Pillow.frombytes("I;16", (2, 1), (0x80FF).to_bytes(2, "little") + (0xFFFF).to_bytes(2, "little"))
    assert list(read(run(Image(), saved(image))).tobytes()) == [0x80, 0xFF]


def test_cmyk_is_read(run: Run) -> None:
    made = read(run(Image(), saved(quarters().convert("CMYK"), "JPEG"), {"format": "png"}))
    assert (made.format, made.mode) == ("PNG", "RGB")


@pytest.mark.parametrize(("mode", "expected"), [("rgb", "RGB"), ("rgba", "RGBA"), ("grey", "L")])
def test_the_mode_is_converted(run: Run, mode: str, expected: str) -> None:
    assert read(run(Image(), PNG, {"mode": mode})).mode == expected


@pytest.mark.parametrize("args", [{"format": "jpeg", "quality": 95}, {"mode": "rgb"}, {"format": "bmp"}])
def test_transparency_that_cannot_stay_shows_the_background(run: Run, args: dict[str, Any]) -> None:
    clear = saved(Pillow.new("RGBA", (8, 8), (255, 0, 0, 0)))
    assert close(corners(read(run(Image(), clear, args))), [WHITE] * 4)
    assert close(corners(read(run(Image(), clear, args | {"background": "blue"}))), [BLUE] * 4)


def test_transparency_of_a_palette_stays(run: Run) -> None:
    image = Pillow.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    made = read(run(Image(), saved(image, transparency=1), 4))
    assert made.mode == "RGBA"
    assert made.getpixel((1, 1))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "tiff", "bmp"])
def test_every_format_is_written_and_read_again(run: Run, name: str) -> None:
    first = run(Image(), PNG, {"format": name})
    assert read(first).format == name.upper()
    again = read(run(Image(), first, {"width": 40, "format": "png"}))
    assert again.size == (40, 20)
    assert close(corners(again), ALL_FOUR, within=20)


def test_quality_counts(run: Run) -> None:
    noise = saved(Pillow.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)))
    for name in ("jpeg", "webp"):
        low, high = (run(Image(), noise, {"format": name, "quality": quality}) for quality in (10, 95))
        assert len(low) < len(high)


def test_the_first_frame_of_an_animation_is_taken(run: Run) -> None:
    data = saved(Pillow.new("RGB", (4, 4), RED), "GIF", save_all=True, append_images=[Pillow.new("RGB", (4, 4), BLUE)])
    made = read(run(Image(), data, {"format": "png"}))
    assert made.convert("RGB").getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("args", "content_type", "key", "expected", "extension"),
    [
        ({"format": "webp"}, "image/png", "a.png", "image/webp", "webp"),
        ({"format": "jpeg"}, "image/png", "a.png", "image/jpeg", "jpg"),
        ({}, "image/JPEG; q=1", "a.png", "image/jpeg", "jpg"),
        ({}, "image/jpg", "a", "image/jpeg", "jpg"),
        ({}, "binary/octet-stream", "x/a.JPeG", "image/jpeg", "jpg"),
        ({}, "binary/octet-stream", "a.tif", "image/tiff", "tif"),
        ({}, "binary/octet-stream", "jpg", "image/png", "png"),
        ({}, "image/heic", "a.heic", "image/png", "png"),
    ],
)
def test_the_format_is_known_without_running(
    run: Run, args: object, content_type: str, key: str, expected: str, extension: str
) -> None:
    context = Context(bucket="b", key=key, etl="image", content_type=content_type, args=parse_args(Image(), args))
    assert Image().content_type(context) == expected
    assert Image().output_extension(context) == extension
    made = run(Image(), PNG, args, key=key, content_type=content_type)
    assert Pillow.MIME[read(made).format or ""] == expected


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_damaged_image_is_rejected(run: Run, name: str) -> None:
    data = saved(Pillow.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)), name)
    for length in (10, len(data) // 2):
        with pytest.raises(Reject, match=r"not a readable image|a damaged image"):
            run(Image(), data[:length])


@pytest.mark.parametrize(
    "data", [b"", b"plain text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]
)
def test_what_is_no_image_is_rejected(run: Run, data: bytes) -> None:
    with pytest.raises(Reject, match="not a readable image: no known format"):
        run(Image(), data)


def test_an_image_of_too_many_pixels_is_rejected_unread(run: Run) -> None:
    bomb = bytearray(saved(Pillow.new("1", (1, 1))))
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    with pytest.raises(Reject, match=r"not a readable image|more than 64000000"):
        run(Image(), bytes(bomb))
    with pytest.raises(Reject, match=r"80x40 pixels, more than 3199 \(max_pixels\)"):
        run(Image(), PNG, {"max_pixels": 3199})
    assert run(Image(), PNG, {"max_pixels": 3200})


def test_a_result_of_too_many_pixels_is_rejected(run: Run) -> None:
    with pytest.raises(Reject, match=r"the result would have 16000x8000 pixels"):
        run(Image(), PNG, 16000)
    with pytest.raises(Reject, match=r"the result would have"):
        run(Image(), saved(Pillow.new("L", (1, 60_000))), {"width": 16000})


def test_a_crop_box_outside_of_the_image_is_rejected(run: Run) -> None:
    with pytest.raises(Reject, match=r"crop box \(0, 0, 81, 40\) lies outside of the image's 80x40 pixels"):
        run(Image(), PNG, {"crop": [0, 0, 81, 40]})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"width": 0}, "argument 'width'.*allowed: integer from 1 to 16384"),
        ({"fit": "squeeze"}, "argument 'fit'.*allowed: one of inside, outside, cover, contain, fill"),
        ({"format": "eps"}, "argument 'format'.*allowed: one of keep, jpeg"),
        ({"quality": 101}, "argument 'quality'.*allowed: integer from 1 to 100"),
        ({"background": "no colour"}, "argument 'background'.*unknown color specifier"),
        ({"crop": [1, 2, 3]}, "argument 'crop.*"),
        ({"crop": [5, 0, 5, 9]}, "crop must be left, top, right, bottom"),
    ],
)
def test_bad_arguments_are_refused(args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Image(), args)


def test_a_crop_box_may_be_an_option() -> None:
    assert parse_args(Image(), None, {"crop": "[0,0,10,20]"}).crop == (0, 0, 10, 20)  # type: ignore[attr-defined]
