"""What jobs are compared with: the same function in a bare pool of processes, and in a script that uses boto3.

No server is started here. The functions are the built-ins' own, called as a script would call them.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from transom.bench.peers import Peer

_CHUNK = 16  # objects that a process of the pool takes at a time
Function = Callable[[str, bytes], bytes]


@lru_cache(maxsize=1)
def function(etl: str, args_json: str) -> Function:
    """What a built-in does with an object's key and bytes."""
    from transom.plugins.args import parse_args
    from transom.plugins.contract import Context
    from transom.plugins.manager import load
    from transom.plugins.shapes import stream

    transformers = load()
    transformer = transformers[etl]
    args = parse_args(transformer, json.loads(args_json) if args_json else None, {})
    logger = logging.getLogger("transom.bench")
    logger.setLevel(logging.ERROR)

    def run(key: str, data: bytes) -> bytes:
        context = Context("bench", key, etl, size=len(data), args=args, logger=logger, transformers=transformers)
        return b"".join(stream(transformer, iter([data]), context, scratch=context.scratch))

    return run


def pool_over_files(source: Path, destination: Path, etl: str, args_json: str, processes: int) -> int:
    """Read every file, apply the function, write what it gives under the same name; return how many."""
    destination.mkdir()
    paths = sorted(source.iterdir())
    todo = [(path, destination / path.name, etl, args_json) for path in paths]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return sum(pool.imap_unordered(_one_file, todo, chunksize=_CHUNK))


def _one_file(each: tuple[Path, Path, str, str]) -> int:
    path, made, etl, args_json = each
    made.write_bytes(function(etl, args_json)(path.name, path.read_bytes()))
    return 1


def threads_over_s3(peer: Peer, source: str, destination: str, etl: str, args_json: str, threads: int) -> int:
    """GET every object, apply the function, PUT what it gives under the same key; return how many."""
    client = s3(peer, threads)
    run = function(etl, args_json)

    def one(key: str) -> int:
        data = client.get_object(Bucket=source, Key=key)["Body"].read()
        client.put_object(Bucket=destination, Key=key, Body=run(key, data))
        return 1

    try:
        client.create_bucket(Bucket=destination)
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(one, list(keys(client, source))))
    finally:
        client.close()


def s3(peer: Peer, connections: int = 10) -> Any:
    """A boto3 client of a peer."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=peer.endpoint,
        aws_access_key_id=peer.access_key,
        aws_secret_access_key=peer.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=connections),
    )


def keys(client: Any, bucket: str) -> Iterator[str]:
    """Every key of a bucket."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (each["Key"] for each in page.get("Contents", ()))


# --- sorting ------------------------------------------------------------------------------------


def sort_files(source: Path, destination: Path, shard_size: int, processes: int) -> int:
    """Sort the records of tar files by name into new ones: an index first, then each shard by one process."""
    destination.mkdir()
    paths = sorted(source.iterdir())
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        members = sorted(member for found in pool.imap_unordered(_members, paths) for member in found)
        shards = list(_cut(members, shard_size))
        todo = [(destination / f"shard-{number:06}.tar", shard) for number, shard in enumerate(shards)]
        return sum(pool.imap_unordered(_write_shard, todo))


_Member = tuple[str, str, str, int, int]  # record, member, file, offset, size


def _members(path: Path) -> list[_Member]:
    with tarfile.open(path) as archive:
        return [(m.name.partition(".")[0], m.name, str(path), m.offset_data, m.size) for m in archive if m.isfile()]


def _cut(members: Sequence[_Member], shard_size: int) -> Iterator[list[_Member]]:
    shard: list[_Member] = []
    size, record = 0, ""
    for member in members:
        if size >= shard_size and member[0] != record:
            yield shard
            shard, size = [], 0
        shard.append(member)
        size, record = size + member[4], member[0]
    if shard:
        yield shard


def _write_shard(each: tuple[Path, Sequence[_Member]]) -> int:
    path, members = each
    sources: dict[str, Any] = {}
    try:
        with tarfile.open(path, "w") as archive:
            for _, name, file, offset, size in members:
                if file not in sources:
                    sources[file] = Path(file).open("rb")  # noqa: SIM115 - closed below, all together
                sources[file].seek(offset)
                info = tarfile.TarInfo(name)
                info.size = size
                archive.addfile(info, sources[file])
    finally:
        for source in sources.values():
            source.close()
    return 1
