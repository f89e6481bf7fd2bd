"""faces finds drawn and real faces where they are, and shows or hides them there and nowhere else."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from PIL import ImageChops, ImageDraw, ImageFilter, ImageStat

from transom.plugins import Context, Reject, Skip
from transom.plugins.args import parse_args
from transom.plugins.builtin.faces import Box, Faces, _grown
from transom.plugins.errors import ArgsError

Run = Callable[..., bytes]  # of conftest

FACES = [(20, 30, 60), (180, 80, 120)]  # left, top, side


def drawn_face(side: int) -> Pillow.Image:
    """What a cascade goes by: dark hair, brows, eyes and mouth, a bright forehead and nose."""
    image = Pillow.new("L", (side, side), 120)
    pen = ImageDraw.Draw(image)

    def oval(x: float, y: float, across: float, down: float, grey: int) -> None:
        pen.ellipse(((x - across) * side, (y - down) * side, (x + across) * side, (y + down) * side), fill=grey)

    oval(0.5, 0.5, 0.42, 0.55, 60)
    oval(0.5, 0.55, 0.36, 0.46, 205)
    for x in (0.34, 0.66):
        oval(x, 0.42, 0.11, 0.06, 120)
        pen.rectangle(((x - 0.1) * side, 0.33 * side, (x + 0.1) * side, 0.36 * side), fill=70)
        oval(x, 0.43, 0.05, 0.035, 40)
    corners = ((0.46, 0.42), (0.54, 0.42), (0.56, 0.62), (0.44, 0.62))
    pen.polygon([(x * side, y * side) for x, y in corners], fill=225)
    oval(0.46, 0.63, 0.03, 0.015, 110)
    oval(0.54, 0.63, 0.03, 0.015, 110)
    oval(0.5, 0.76, 0.13, 0.04, 95)
    return image.filter(ImageFilter.GaussianBlur(side / 60))


@lru_cache
def scene(faces: Sequence[tuple[int, int, int]] = tuple(FACES), size: tuple[int, int] = (320, 240)) -> Pillow.Image:
    image = Pillow.new("L", size, 120)
    for left, top, side in faces:
        image.paste(drawn_face(side), (left, top))
    return image.convert("RGB")


def saved(image: Pillow.Image, name: str = "PNG", **options: Any) -> bytes:
    output = io.BytesIO()
    image.save(output, name, **options)
    return output.getvalue()


def read(data: bytes) -> Pillow.Image:
    image = Pillow.open(io.BytesIO(data))
    image.load()
    return image


def listed(run: Run, data: bytes, **args: Any) -> list[tuple[int, int, int, int]]:
    found = json.loads(run(Faces(), data, {"mode": "json", **args}))
    return [(face["left"], face["top"], face["width"], face["height"]) for face in found["faces"]]


def is_on(found: tuple[int, int, int, int], drawn: tuple[int, int, int]) -> bool:
    """The middle of one is within a tenth of the other's, and so is the size."""
    slack = drawn[2] / 10
    middle = [found[axis] + found[axis + 2] / 2 for axis in (0, 1)]
    return (
        all(abs(middle[axis] - drawn[axis] - drawn[2] / 2) < slack for axis in (0, 1))
        and abs(found[2] - drawn[2]) < 2 * slack
    )


def changed(before: Pillow.Image, after: Pillow.Image) -> tuple[int, int, int, int] | None:
    return ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox()


@pytest.mark.parametrize("cascade", ["default", "alt", "alt2"])
def test_faces_are_found_where_they_are(run: Run, cascade: str) -> None:
    data = saved(scene())
    found = listed(run, data, cascade=cascade)
    assert len(found) == 2
    assert all(is_on(one, drawn) for one, drawn in zip(found, FACES, strict=True))
    about = json.loads(run(Faces(), data, "json"))
    assert (about["width"], about["height"]) == (320, 240)


def test_a_face_of_a_photo_is_found(run: Run) -> None:
    """Eileen Collins, photographed for NASA: in the public domain, and in the package of scikit-image."""
    package = importlib.util.find_spec("skimage")
    assert package is not None
    assert package.submodule_search_locations is not None
    data = (Path(package.submodule_search_locations[0]) / "data" / "astronaut.png").read_bytes()
    for cascade in ("default", "alt", "alt2"):
        ((left, top, width, height),) = listed(run, data, cascade=cascade, min_size=60)
        assert 150 < left < 200
        assert 50 < top < 90
        assert 80 < width == height < 130


@pytest.mark.parametrize("size", [(1, 1), (10, 10), (400, 3), (300, 200)])
@pytest.mark.parametrize("mode", ["box", "blur", "pixelate"])
def test_an_image_without_faces_stays_as_it_is(run: Run, size: tuple[int, int], mode: str) -> None:
    image = Pillow.linear_gradient("L").resize(size).convert("RGB")
    assert read(run(Faces(), saved(image), mode)).convert("RGB").tobytes() == image.tobytes()
    assert listed(run, saved(image)) == []
    with pytest.raises(Skip, match="no face is found"):
        run(Faces(), saved(image), "crop")


def test_boxes_are_drawn_around_faces(run: Run) -> None:
    data = saved(scene())
    made = read(run(Faces(), data, {"color": "#ff0000", "thickness": 3}))
    for left, top, width, height in listed(run, data):
        for x, y in ((left, top), (left + width - 1, top + height - 1), (left + 2, top + height // 2)):
            assert made.getpixel((x, y)) == (255, 0, 0)
        inside = (left + 3, top + 3, left + width - 3, top + height - 3)
        assert made.crop(inside).tobytes() == scene().crop(inside).tobytes()


@pytest.mark.parametrize("mode", ["blur", "pixelate"])
def test_faces_are_hidden_and_nothing_else_is_changed(run: Run, mode: str) -> None:
    data = saved(scene())
    made = read(run(Faces(), data, mode))
    if mode == "blur":
        assert listed(run, saved(made)) == []
    rest = made.copy()
    for left, top, width, height in listed(run, data):
        box = (left, top, left + width, top + height)
        before, after = (ImageStat.Stat(image.crop(box).convert("L")) for image in (scene(), made))
        assert after.stddev[0] < 0.95 * before.stddev[0]
        assert abs(after.mean[0] - before.mean[0]) < 12
        rest.paste(scene().crop(box), box)
    assert changed(scene(), rest) is None


def test_the_largest_face_is_cut_out(run: Run) -> None:
    data = saved(scene())
    made = read(run(Faces(), data, "crop"))
    left, top, width, height = listed(run, data)[1]
    assert made.size == (width, height)
    assert made.tobytes() == scene().crop((left, top, left + width, top + height)).tobytes()


def test_boxes_grow_within_the_image() -> None:
    box = Box(top=10, left=20, width=100, height=50)
    assert _grown(box, 0.1, (640, 480)) == Box(top=5, left=10, width=120, height=60)
    assert _grown(box, 1.0, (150, 70)) == Box(top=0, left=0, width=150, height=70)
    assert _grown(box, -0.4, (640, 480)) == Box(top=30, left=60, width=20, height=10)


def test_a_margin_counts(run: Run) -> None:
    data = saved(scene())
    tight, wide = listed(run, data), listed(run, data, margin=0.1)
    for (left, top, width, _), (left_2, top_2, width_2, _) in zip(tight, wide, strict=True):
        assert left - left_2 == pytest.approx(width * 0.1, abs=1)
        assert top - top_2 == pytest.approx(width * 0.1, abs=1)
        assert width_2 == pytest.approx(width * 1.2, abs=2)


def test_min_size_leaves_small_faces_out(run: Run) -> None:
    assert [is_on(found, FACES[1]) for found in listed(run, saved(scene()), min_size=100)] == [True]


def test_a_large_image_is_searched_at_less_detail(run: Run) -> None:
    large = saved(scene().resize((1280, 960)))
    found = listed(run, large, detail=320)
    assert len(found) == 2
    assert all(is_on(one, (x * 4, y * 4, side * 4)) for one, (x, y, side) in zip(found, FACES, strict=True))
    assert [is_on(one, FACES[1]) for one in listed(run, saved(scene()), detail=64)] == [True]  # the small one is lost


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_image_is_turned_upright_first(run: Run, orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that stores it so
    stored = scene().transpose(Pillow.Transpose(undo[orientation])) if orientation in undo else scene()
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = saved(stored, "JPEG", exif=exif, quality=95)
    found = listed(run, data)
    assert all(is_on(one, drawn) for one, drawn in zip(found, FACES, strict=True))
    made = read(run(Faces(), data, {"mode": "pixelate"}, content_type="image/jpeg"))
    assert (made.format, made.size) == ("JPEG", (320, 240))
    assert not made.getexif()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("do", ["box", "blur", "pixelate", "crop"])
def test_every_colour_mode_is_taken(run: Run, mode: str, do: str) -> None:
    data = saved(scene().convert(mode))
    assert changed(scene(), read(run(Faces(), data, do)).resize(scene().size)) is not None


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "tiff", "bmp"])
def test_the_format_is_kept(run: Run, name: str) -> None:
    data = saved(scene(), name.upper())
    args = {"mode": "blur"}
    assert read(run(Faces(), data, args, content_type=f"image/{name}")).format == name.upper()
    assert read(run(Faces(), data, args | {"format": "png"})).format == "PNG"


@pytest.mark.parametrize("data", [b"", b"plain text", b"\x89PNG\r\n\x1a\n", saved(Pillow.new("L", (64, 64)))[:40]])
def test_what_is_no_image_is_rejected(run: Run, data: bytes) -> None:
    with pytest.raises(Reject, match=r"not a readable image|a damaged image"):
        run(Faces(), data, "json")


def test_an_image_of_too_many_pixels_is_rejected(run: Run) -> None:
    with pytest.raises(Reject, match=r"320x240 pixels, more than 76799 \(max_pixels\)"):
        run(Faces(), saved(scene()), {"max_pixels": 76_799})


def test_threads_search_side_by_side(run: Run) -> None:
    faces, data = Faces(), saved(scene())
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: run(faces, data, "json"), range(12)))
    assert len(made) == 1


def test_the_output_is_known_without_running() -> None:
    def told(args: object) -> tuple[str, str | None]:
        context = Context("b", "a.jpg", "faces", args=parse_args(Faces(), args))
        return Faces().content_type(context), Faces().output_extension(context)

    assert told("json") == ("application/json", "json")
    assert told(None) == ("image/jpeg", "jpg")
    assert told({"format": "webp"}) == ("image/webp", "webp")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("smile", "argument 'mode'.*one of box, blur, pixelate, crop, json"),
        ({"color": "no colour"}, "argument 'color'.*unknown color specifier"),
        ({"step": 1.0}, r"argument 'step'.*from 1.05 to 2.0"),
        ({"cascade": "../../etc/passwd"}, "argument 'cascade'"),
    ],
)
def test_bad_arguments_are_refused(args: object, message: str) -> None:
    with pytest.raises(ArgsError, match=message):
        parse_args(Faces(), args)
