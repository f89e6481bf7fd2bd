"""The sample images' workers do what they say, and their specs are valid ones."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from worker_runs import InProcess

from transom.target.etl.spec_load import load as load_specs
from transom.worker.loading import load

IMAGES = Path(__file__).parents[3] / "deploy" / "images"
SAMPLES = sorted(path.parent.name for path in IMAGES.glob("*/Containerfile"))


@pytest.fixture
def sample(serving: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], InProcess]]:
    monkeypatch.setattr("sys.path", [*sys.path])

    def start(name: str) -> InProcess:
        worker = serving(load(IMAGES / name / "worker.py"))
        worker.service.transform.start()
        return worker

    yield start


def test_echo(sample: Callable[[str], InProcess]) -> None:
    assert sample("echo").put(b"data" * 100_000) == (200, b"data" * 100_000)


@pytest.mark.parametrize("args", ["", "sha512", '{"algorithm": "md5"}'])
def test_hash(sample: Callable[[str], InProcess], args: str) -> None:
    algorithm = {"": "sha256", "sha512": "sha512"}.get(args, "md5")
    assert sample("hash").put(b"data", args=args) == (200, hashlib.new(algorithm, b"data").hexdigest().encode())


@pytest.mark.parametrize("args", ["crc", "shake_128", '{"algorithm": 5}', "[]"])
def test_hash_refuses_what_it_doesnt_know(sample: Callable[[str], InProcess], args: str) -> None:
    assert sample("hash").put(b"data", args=args)[0] == (200 if args == "[]" else 422)


def sound(rate: int, seconds: int) -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(4 * rate * seconds))
    return written.getvalue()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here")
def test_ffmpeg(sample: Callable[[str], InProcess]) -> None:
    worker = sample("ffmpeg")
    status, body = worker.put(sound(44_100, 2), "b/a.wav", '{"rate": 8000, "channels": 1}')
    assert status == 200
    with wave.open(io.BytesIO(body)) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 1)
        assert 15_900 <= file.getnframes() <= 16_100
    assert worker.put(b"no sound at all", "b/a.wav")[0] == 422


@pytest.mark.parametrize("args", ["exe", '{"format": "../x"}', '{"speed": 1}', '{"rate": [1]}'])
def test_ffmpeg_takes_no_option_that_it_doesnt_know(sample: Callable[[str], InProcess], args: str) -> None:
    assert sample("ffmpeg").put(b"", args=args)[0] == 422


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_has_a_valid_spec_and_an_image_that_copies_what_there_is(name: str) -> None:
    assert load_specs((IMAGES / name / "spec.yaml").read_text())
    lines = [line.split() for line in (IMAGES / name / "Containerfile").read_text().splitlines()]
    copied: list[Any] = [line[1] for line in lines if line and line[0] == "COPY"]
    assert f"deploy/images/{name}/worker.py" in copied
    assert all((IMAGES.parents[1] / source).exists() for source in copied)


def test_there_are_samples() -> None:
    assert SAMPLES == ["echo", "ffmpeg", "hash"]
