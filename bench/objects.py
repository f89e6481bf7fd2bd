"""Which objects a transformer takes, and how to make them: texts, tables, sounds, shards, packed ones.

It knows nothing of requests. Everything follows from a seed, as in `data`; libraries are imported when they are needed.
"""

from __future__ import annotations

import array
import gzip
import io
import json
import random
import tarfile
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from transom.bench.data import Blob, photos, random_blobs

Kind = Literal["random", "photo", "text", "csv", "wav", "flac", "parquet", "shard", "gzip"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SAMPLE_RATE = 16_000
PARTS = 16  # a text or sound is put together from this many, in another order for each object
SHARD_PHOTO = (96, 72)
WORDS = (
    "the", "a", "of", "to", "and", "in", "was", "his", "that", "her", "is", "with", "as", "had", "for", "at", "by",
    "whale", "sea", "ship", "captain", "harpoon", "deck", "mast", "wave", "mary.jones@example.com", "+1 415 555 0134",
    "4111 1111 1111 1111", "password=hunter2hunter2",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Objects:
    """What to put for an ETL: the kind of object, and arguments to ask with where none are given."""

    kind: Kind
    args: str = ""


PHOTO_ARGS = '{"width":224,"height":224,"format":"jpeg"}'
FOR_ETL: Mapping[str, Objects] = {
    "decompress": Objects("gzip"),
    "faces": Objects("photo"),
    "ffmpeg": Objects("wav"),
    "image": Objects("photo", PHOTO_ARGS),
    "parquet": Objects("parquet"),
    "redact": Objects("text"),
    "split_audio": Objects("wav"),
    "sql": Objects("csv", '{"query":"SELECT name, sum(amount) AS sum FROM S3Object WHERE paid GROUP BY name"}'),
    "tar": Objects("shard", '{"list":"members"}'),
    "tar2tf": Objects("shard"),
    "text": Objects("text", '{"grep":"whale","ignore_case":true}'),
    "torchvision": Objects("photo"),
    "upper": Objects("text"),
}
"""The transformers that don't take just any bytes, and those for which some say more than others."""

EXTENSIONS: Mapping[Kind, str] = {
    "random": "",
    "photo": ".jpg",
    "text": ".txt",
    "csv": ".csv",
    "wav": ".wav",
    "flac": ".flac",
    "parquet": ".parquet",
    "shard": ".tar",
    "gzip": ".gz",
}
"""What keys end in, for transformers that go by it."""


def parse_kind(text: str) -> Kind:
    """The kind of that name; raises ValueError."""
    for kind in KINDS:
        if kind == text:
            return kind
    raise ValueError(f"not a kind of objects: {text!r} ({', '.join(KINDS)})")


def objects_for(pipeline: Sequence[str]) -> Objects:
    """What to put for a pipeline: its first stage takes it, and is given its arguments if it is the only one."""
    found = FOR_ETL.get(pipeline[0], Objects("random")) if pipeline else Objects("random")
    return found if len(pipeline) == 1 else Objects(found.kind)


@lru_cache(maxsize=2)
def blobs(kind: Kind, size: int, count: int, seed: int) -> Sequence[Blob]:
    """`count` objects of a kind (photos have their size in pixels: `photo_blobs`), pairwise different, of about `size`
    bytes each. Raises ValueError where a library is missing."""
    if kind == "random":
        return random_blobs(size, count, seed)
    try:
        return [Blob(made, 0, len(made)) for made in _MAKERS[kind](size, count, seed)]
    except ModuleNotFoundError as error:
        raise ValueError(f"objects of the kind {kind!r} need {error.name}: pip install 'transom[all]'") from error


def _texts(size: int, count: int, seed: int) -> Iterator[bytes]:
    """Lines of words, names and numbers among them that are not to be told."""
    generator = random.Random(seed)  # noqa: S311 - data, not secrets
    part_size = max(80, size // PARTS)
    parts = [_lines(part_size, generator) for _ in range(PARTS)]
    for index in range(count):
        generator.shuffle(parts)
        head = f"text {index}\n".encode()
        yield head + b"".join(parts)[: max(0, size - len(head))]


def _lines(size: int, generator: random.Random) -> bytes:
    made = bytearray()
    while len(made) < size:
        made += " ".join(generator.choices(WORDS, k=12)).encode() + b"\n"
    return bytes(made)


def _csvs(size: int, count: int, seed: int) -> Iterator[bytes]:
    for index in range(count):
        lines = ["id,name,amount,paid"]
        length = 0
        for row in _rows(index, seed):
            lines.append("{id},{name},{amount},{paid}".format_map(row))
            length += len(lines[-1]) + 1
            if length >= size:
                break
        yield "\n".join(lines).encode() + b"\n"


def _rows(index: int, seed: int) -> Iterator[dict[str, int | float | str | bool]]:
    """Rows without end of the table that an object holds."""
    generator = random.Random(f"{seed}/{index}")  # noqa: S311 - data, not secrets
    number = index * 1_000_000
    while True:
        number += 1
        yield {
            "id": number,
            "name": generator.choice(WORDS),
            "amount": round(generator.uniform(0, 1000), 2),
            "paid": generator.random() < 0.5,  # noqa: PLR2004 - one half
        }


def _parquets(size: int, count: int, seed: int) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row_size = 13  # about what a row of this table takes
    for index in range(count):
        rows = _rows(index, seed)
        table = pa.Table.from_pylist([next(rows) for _ in range(max(1, size // row_size))])
        output = io.BytesIO()
        pq.write_table(table, output)
        yield output.getvalue()


def _wavs(size: int, count: int, seed: int) -> Iterator[bytes]:
    """Sixteen-bit mono sound: bursts of noise with near silence between, as in speech."""
    generator = random.Random(seed)  # noqa: S311 - data, not secrets
    length = max(SAMPLE_RATE // 50, size // 2 // PARTS)
    parts = [_burst(length, loud=number % 2 == 0, generator=generator) for number in range(PARTS)]
    for index in range(count):
        generator.shuffle(parts)
        number = array.array("h", [index & 0x7F, (index >> 7) & 0x7F, (index >> 14) & 0x7F])  # hardly to be heard
        output = io.BytesIO()
        with wave.open(output, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(SAMPLE_RATE)
            sound.writeframes(number.tobytes() + b"".join(parts))
        yield output.getvalue()


def _flacs(size: int, count: int, seed: int) -> Iterator[bytes]:
    """The sounds of `_wavs` of that size, packed: what is left of them is smaller."""
    import av

    for data in _wavs(size, count, seed):
        output = io.BytesIO()
        with av.open(io.BytesIO(data), "r") as source, av.open(output, "w", format="flac") as packed:
            stream = packed.add_stream("flac", rate=SAMPLE_RATE)
            for frame in source.decode(audio=0):
                packed.mux(stream.encode(frame))
            packed.mux(stream.encode(None))
        yield output.getvalue()


def _burst(length: int, *, loud: bool, generator: random.Random) -> bytes:
    samples = array.array("h", generator.randbytes(2 * length))
    shift = 2 if loud else 10
    return array.array("h", [sample >> shift for sample in samples]).tobytes()


def _shards(size: int, count: int, seed: int) -> Iterator[bytes]:
    """WebDataset shards: records of a small photo, its class and what is said of it."""
    pictures = photos(*SHARD_PHOTO, PARTS, seed)
    for index in range(count):
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            record = 0
            while not record or output.tell() < size - tarfile.RECORDSIZE:
                key = f"{index:06}/{record:06}"
                about = {"key": key, "caption": WORDS[record % len(WORDS)], "width": SHARD_PHOTO[0]}
                _add(archive, f"{key}.jpg", pictures[record % PARTS])
                _add(archive, f"{key}.cls", str(record % 10).encode())
                _add(archive, f"{key}.json", json.dumps(about).encode())
                record += 1
        yield output.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _gzips(size: int, count: int, seed: int) -> Iterator[bytes]:
    """Texts that are of that size once unpacked."""
    for text in _texts(size, count, seed):
        yield gzip.compress(text, mtime=0)


_MAKERS: Mapping[Kind, Callable[[int, int, int], Iterator[bytes]]] = {
    "text": _texts,
    "csv": _csvs,
    "wav": _wavs,
    "flac": _flacs,
    "parquet": _parquets,
    "shard": _shards,
    "gzip": _gzips,
}
