"""Sizes, durations and the bytes that are put."""

import io

import pytest
from PIL import Image

from transom.bench.data import parse_duration_s, parse_pixels, parse_size, photo_blobs, random_blobs


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("4KiB", 4096), ("4k", 4096), ("4KB", 4000), ("1.5MiB", 1572864), ("2 GiB", 2**31), ("0", 0)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "4XiB", "-1", "4 KiB KiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("5", 5), ("500ms", 0.5), ("2m", 120), ("1h", 3600)])
def test_durations(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5d", "fast"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize("text", ["", "10", "0x5", "axb", "100000x1"])
def test_what_is_no_picture_size_is_refused(text):
    with pytest.raises(ValueError, match="picture size"):
        parse_pixels(text)


@pytest.mark.parametrize("size", [0, 1, 1000, 4096])
def test_random_objects_have_their_size_and_differ(size):
    blobs = [bytes(blob.view()) for blob in random_blobs(size, 8, 3)]
    assert {len(blob) for blob in blobs} == {size}
    if size > 4:
        assert len(set(blobs)) == 8


def test_the_same_seed_gives_the_same_objects():
    first = [bytes(blob.view()) for blob in random_blobs(500, 4, 7)]
    random_blobs.cache_clear()
    assert first == [bytes(blob.view()) for blob in random_blobs(500, 4, 7)]
    assert first != [bytes(blob.view()) for blob in random_blobs(500, 4, 8)]


def test_photos_are_jpegs_of_the_asked_size_and_differ():
    blobs = [bytes(blob.view()) for blob in photo_blobs(320, 200, 12, 1)]
    assert len(set(blobs)) == 12
    for blob in blobs:
        with Image.open(io.BytesIO(blob)) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (320, 200))
    assert len(blobs[0]) > 320 * 200 / 10  # grain that a real encoder can't smooth away
