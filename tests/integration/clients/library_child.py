"""Runs one Python S3 library for the tests, in a process and, if need be, an environment of its own.

Reads one JSON request a line, answers each from a thread of its own. It imports nothing of the tests: the interpreter
may be another environment's, and the library is all that this environment is sure to have.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
PART_SIZE = 5 * MIB
REGION = "us-east-1"


class Boto3:
    """boto3 as it comes; `checksums` sets its two checksum options where it isn't empty."""

    def __init__(self, access: str, secret: str, checksums: str = "") -> None:
        import boto3
        from botocore.config import Config

        chosen = {"response_checksum_validation": checksums, "request_checksum_calculation": checksums}
        session = boto3.session.Session(access, secret, region_name=REGION)
        lock = threading.Lock()

        @cache
        def client(endpoint: str) -> Any:
            config = Config(**chosen) if checksums else None
            return session.client("s3", endpoint_url=endpoint, config=config)

        def locked(endpoint: str) -> Any:
            with lock:
                return client(endpoint)

        self.client = locked

    def put(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        with Path(path).open("rb") as body:
            self.client(endpoint).put_object(Bucket=bucket, Key=key, Body=body)

    def put_parts(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        self.client(endpoint).upload_file(path, bucket, key)

    def get(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        answer = self.client(endpoint).get_object(Bucket=bucket, Key=key)
        with Path(path).open("wb") as file:
            for chunk in answer["Body"].iter_chunks(MIB):
                file.write(chunk)

    def get_range(self, endpoint: str, bucket: str, key: str, start: int, stop: int, path: str) -> None:
        answer = self.client(endpoint).get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}")
        Path(path).write_bytes(answer["Body"].read())

    def read(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        self.client(endpoint).download_file(bucket, key, path)

    def list(self, endpoint: str, bucket: str, prefix: str) -> dict[str, int]:
        pages = self.client(endpoint).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}

    def read_listed(self, endpoint: str, bucket: str, prefix: str, folder: str) -> list[str]:
        """Every object under the prefix, pinned to the ETag that it was listed with."""
        client = self.client(endpoint)
        keys = []
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                answer = client.get_object(Bucket=bucket, Key=entry["Key"], IfMatch=entry["ETag"])
                (Path(folder) / str(len(keys))).write_bytes(answer["Body"].read())
                keys.append(entry["Key"])
        return keys

    def copy(self, endpoint: str, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        self.client(endpoint).copy({"Bucket": bucket, "Key": key}, to_bucket, to_key)

    def delete(self, endpoint: str, bucket: str, key: str) -> None:
        self.client(endpoint).delete_object(Bucket=bucket, Key=key)


class S3fs:
    """s3fs, with its listings cache on as it comes."""

    def __init__(self, access: str, secret: str) -> None:
        import s3fs

        self._open = lambda endpoint: s3fs.S3FileSystem(
            key=access,
            secret=secret,
            endpoint_url=endpoint,
            client_kwargs={"region_name": REGION},
            skip_instance_cache=True,
        )

    def put(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        self._open(endpoint).put_file(path, f"{bucket}/{key}")

    def put_parts(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        with self._open(endpoint).open(f"{bucket}/{key}", "wb", block_size=PART_SIZE) as file:
            data = Path(path).read_bytes()
            for start in range(0, len(data), PART_SIZE):
                file.write(data[start : start + PART_SIZE])

    def get(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        Path(path).write_bytes(self._open(endpoint).cat_file(f"{bucket}/{key}"))

    def get_range(self, endpoint: str, bucket: str, key: str, start: int, stop: int, path: str) -> None:
        Path(path).write_bytes(self._open(endpoint).cat_file(f"{bucket}/{key}", start=start, end=stop))

    def read(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        """By `open`: HEAD, then ranges of a block each."""
        with (
            self._open(endpoint).open(f"{bucket}/{key}", "rb", block_size=PART_SIZE) as file,
            Path(path).open("wb") as out,
        ):
            while piece := file.read(MIB):
                out.write(piece)

    def list(self, endpoint: str, bucket: str, prefix: str) -> dict[str, int]:
        found = self._open(endpoint).find(f"{bucket}/{prefix}", detail=True)
        return {name.partition("/")[2]: entry["size"] for name, entry in found.items()}

    def read_listed(self, endpoint: str, bucket: str, prefix: str, folder: str) -> list[str]:
        """After `ls`, by `open`, which goes by the listed ETag and size."""
        filesystem = self._open(endpoint)
        names = filesystem.ls(f"{bucket}/{prefix}", detail=False)
        for number, name in enumerate(names):
            with filesystem.open(name, "rb") as file:
                (Path(folder) / str(number)).write_bytes(file.read())
        return [name.partition("/")[2] for name in names]

    def cat_listed(self, endpoint: str, bucket: str, prefix: str, folder: str) -> list[str]:
        """After `ls`, by `cat`, which asks for the whole."""
        filesystem = self._open(endpoint)
        names = filesystem.ls(f"{bucket}/{prefix}", detail=False)
        for number, data in enumerate(filesystem.cat(names).values()):
            (Path(folder) / str(number)).write_bytes(data)
        return [name.partition("/")[2] for name in names]

    def copy(self, endpoint: str, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        self._open(endpoint).copy(f"{bucket}/{key}", f"{to_bucket}/{to_key}")

    def delete(self, endpoint: str, bucket: str, key: str) -> None:
        self._open(endpoint).rm_file(f"{bucket}/{key}")


class PyArrow:
    """pyarrow.fs.S3FileSystem: the AWS SDK for C++."""

    def __init__(self, access: str, secret: str) -> None:
        from pyarrow import fs

        self._fs = fs

        def open_fs(endpoint: str) -> Any:
            scheme, _, rest = endpoint.partition("://")
            return fs.S3FileSystem(
                access_key=access, secret_key=secret, endpoint_override=rest, scheme=scheme, region=REGION
            )

        self._open = open_fs

    def put(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        with self._open(endpoint).open_output_stream(f"{bucket}/{key}") as file:
            file.write(Path(path).read_bytes())

    put_parts = put  # an output stream always is a multipart upload

    def get(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        with self._open(endpoint).open_input_stream(f"{bucket}/{key}") as file:
            Path(path).write_bytes(file.read())

    def get_range(self, endpoint: str, bucket: str, key: str, start: int, stop: int, path: str) -> None:
        with self._open(endpoint).open_input_file(f"{bucket}/{key}") as file:
            Path(path).write_bytes(file.read_at(stop - start, start))

    def read(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        with self._open(endpoint).open_input_file(f"{bucket}/{key}") as file, Path(path).open("wb") as out:
            while piece := file.read(PART_SIZE):
                out.write(piece)

    def list(self, endpoint: str, bucket: str, prefix: str) -> dict[str, int]:
        return {info.path.partition("/")[2]: info.size for info in self._infos(endpoint, bucket, prefix)}

    def _infos(self, endpoint: str, bucket: str, prefix: str) -> Any:
        selector = self._fs.FileSelector(f"{bucket}/{prefix.rstrip('/')}", recursive=True)
        infos = self._open(endpoint).get_file_info(selector)
        return sorted((info for info in infos if info.is_file), key=lambda info: info.path)

    def read_listed(self, endpoint: str, bucket: str, prefix: str, folder: str) -> list[str]:
        infos = self._infos(endpoint, bucket, prefix)
        for number, info in enumerate(infos):
            self.read(endpoint, *info.path.split("/", 1), str(Path(folder) / str(number)))
        return [info.path.partition("/")[2] for info in infos]

    def copy(self, endpoint: str, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        self._open(endpoint).copy_file(f"{bucket}/{key}", f"{to_bucket}/{to_key}")

    def delete(self, endpoint: str, bucket: str, key: str) -> None:
        self._open(endpoint).delete_file(f"{bucket}/{key}")


class Crt:
    """The AWS CRT by way of s3torchconnectorclient; it takes its keys from the environment."""

    def __init__(self, access: str, secret: str) -> None:
        from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

        del access, secret
        self._open = cache(lambda endpoint: MountpointS3Client(REGION, endpoint=endpoint, force_path_style=True))

    def put(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        stream = self._open(endpoint).put_object(bucket, key)
        stream.write(Path(path).read_bytes())
        stream.close()

    put_parts = put  # the CRT always starts a multipart upload

    def get(self, endpoint: str, bucket: str, key: str, path: str) -> None:
        with Path(path).open("wb") as out:
            for piece in self._open(endpoint).get_object(bucket, key):
                out.write(piece)

    read = get

    def get_range(self, endpoint: str, bucket: str, key: str, start: int, stop: int, path: str) -> None:
        Path(path).write_bytes(b"".join(self._open(endpoint).get_object(bucket, key, start, stop)))

    def list(self, endpoint: str, bucket: str, prefix: str) -> dict[str, int]:
        pages = self._open(endpoint).list_objects(bucket, prefix)
        return {info.key: info.size for page in pages for info in page.object_info}

    def read_listed(self, endpoint: str, bucket: str, prefix: str, folder: str) -> list[str]:
        keys = list(self.list(endpoint, bucket, prefix))
        for number, key in enumerate(keys):
            self.read(endpoint, bucket, key, str(Path(folder) / str(number)))
        return keys

    def copy(self, endpoint: str, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        self._open(endpoint).copy_object(bucket, key, to_bucket, to_key)

    def delete(self, endpoint: str, bucket: str, key: str) -> None:
        self._open(endpoint).delete_object(bucket, key)


LIBRARIES: dict[str, Callable[..., Any]] = {"boto3": Boto3, "s3fs": S3fs, "pyarrow": PyArrow, "crt": Crt}


def main() -> None:
    """Serve requests until stdin ends."""
    options = json.loads(sys.argv[1])
    library = LIBRARIES[options.pop("library")](**options)
    out = threading.Lock()

    def serve(request: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            answer["value"] = getattr(library, request["do"])(**request["with"])
        except BaseException as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        with out:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    for line in sys.stdin:
        threading.Thread(target=serve, args=(json.loads(line),), daemon=True).start()


if __name__ == "__main__":
    main()
