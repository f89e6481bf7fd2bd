"""Reads objects through a torch DataLoader over s3torchconnector, and tells the SHA-256 of each.

It imports nothing of the tests: the interpreter is another environment's.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from s3torchconnector import S3ClientConfig, S3IterableDataset, S3MapDataset, S3Reader
from torch.utils.data import DataLoader

BATCH, WORKERS = 4, 2


def digest(reader: S3Reader) -> tuple[str, str]:
    """What the dataset makes of one object."""
    return reader.key, hashlib.sha256(reader.read()).hexdigest()


def load(batches: DataLoader[Any]) -> dict[str, str]:
    """The digests of every batch, by key."""
    return {key: value for keys, values in batches for key, value in zip(keys, values, strict=True)}


def main(endpoint: str, prefix: str) -> None:
    """Load every object under `prefix` (s3://bucket/…): by index in worker processes, then as a stream."""
    options = {
        "region": "us-east-1",
        "endpoint": endpoint,
        "transform": digest,
        "s3client_config": S3ClientConfig(force_path_style=True),
    }
    by_index = S3MapDataset.from_prefix(prefix, **options)
    stream = S3IterableDataset.from_prefix(prefix, **options)
    found = {
        "by index": load(DataLoader(by_index, BATCH, num_workers=WORKERS, multiprocessing_context="spawn")),
        "as a stream": load(DataLoader(stream, BATCH)),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
