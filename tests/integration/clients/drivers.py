"""Every S3 client of the matrix behind one interface, each in processes of its own with a home and keys of its own.

A driver hands back what its client read, or raises ClientError with what the client said. It knows no expected bytes.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.running import ACCESS, SECRET

MIB = 1024 * 1024
PATIENCE_S = 100.0
ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
OLD_BIN = ROOT / ".venv-old" / "bin"
REMEDY = "run scripts/setup"
_CHILD = Path(__file__).with_name("library_child.py")


class ClientError(Exception):
    """The client reported a failure, in its own words."""


class ClientHungError(Exception):
    """The client did not finish within the time that a test gives it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client reads or writes: an endpoint, with or without a prefix, and a bucket."""

    endpoint: str
    bucket: str


def environment(home: Path) -> dict[str, str]:
    """What a client's process gets: an empty home and the test's keys, nothing of the caller's own AWS set-up."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(home / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "no-credentials"),
    }


class Driver(ABC):
    """One client. Paths of the methods are local files; `place` says where the object is."""

    odd_key = "folder/a b+c ü.txt"  # what it can put, list, get and copy

    def __init__(self, work: Path, name: str) -> None:
        self.work = work / name
        self.env = environment(self.work / "home")
        self._numbers = itertools.count()

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Why the client can't be run here, with the remedy; None when it can."""

    @abstractmethod
    def put(self, place: Place, key: str, path: Path) -> None:
        """Put a small object."""

    @abstractmethod
    def put_parts(self, place: Place, key: str, path: Path) -> None:
        """Put a larger object as a multipart upload."""

    @abstractmethod
    def list(self, place: Place, prefix: str) -> dict[str, int]:
        """Keys under a prefix, with their sizes."""

    @abstractmethod
    def copy(self, place: Place, key: str, to: Place, to_key: str) -> None:
        """Copy on the server."""

    @abstractmethod
    def delete(self, place: Place, key: str) -> None:
        """Delete one object."""

    @abstractmethod
    def _get(self, place: Place, key: str, path: Path) -> None: ...

    @abstractmethod
    def _read(self, place: Place, key: str, path: Path) -> None: ...

    @abstractmethod
    def _get_range(self, place: Place, key: str, start: int, stop: int, path: Path) -> None: ...

    @abstractmethod
    def _read_listed(self, place: Place, prefix: str, folder: Path) -> dict[str, Path]: ...

    def get(self, place: Place, key: str) -> bytes:
        """The object in the client's simplest way."""
        return self._through_file(lambda path: self._get(place, key, path))

    def read(self, place: Place, key: str) -> bytes:
        """The object in the way that the client uses for large ones: HEAD and ranges, most of the time."""
        return self._through_file(lambda path: self._read(place, key, path))

    def get_range(self, place: Place, key: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop)."""
        return self._through_file(lambda path: self._get_range(place, key, start, stop, path))

    def read_listed(self, place: Place, prefix: str) -> dict[str, bytes]:
        """List, then read all that was listed; by key."""
        folder = self.scratch()
        folder.mkdir()
        return {key: path.read_bytes() for key, path in self._read_listed(place, prefix, folder).items()}

    def close(self) -> None:  # noqa: B027 - only some have anything to end
        """End what runs."""

    def scratch(self) -> Path:
        """A path that nothing is at."""
        return self.work / f"scratch-{next(self._numbers)}"

    def _through_file(self, write: Callable[[Path], None]) -> bytes:
        path = self.scratch()
        try:
            write(path)
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    def run(self, *command: str | Path) -> str:
        """Run a program to its end; its output. Raises ClientError, ClientHungError."""
        try:
            done = subprocess.run(
                list(map(str, command)), env=self.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ClientHungError(f"{command[0]} was still running after {PATIENCE_S} s") from error
        if done.returncode:
            raise ClientError(f"{command[0]} exited with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout


class Library(Driver):
    """A Python library, in one child process that answers many requests at once."""

    library: str
    module: str
    python = Path(sys.executable)
    options: Mapping[str, str] = MappingProxyType({})

    def __init__(self, work: Path, name: str) -> None:
        super().__init__(work, name)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._stderr = (self.work / "stderr").open("w+b")
        options = {"library": self.library, "access": ACCESS, "secret": SECRET, **self.options}
        self._process = subprocess.Popen(
            [self.python, "-W", "ignore", _CHILD, json.dumps(options)],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    @classmethod
    def missing(cls) -> str | None:
        if find_spec(cls.module) is None:
            return f"{cls.module} is not installed: {REMEDY}"
        return None

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(answer["id"])
            if "error" in answer:
                waiting.set_exception(ClientError(answer["error"]))
            else:
                waiting.set_result(answer["value"])
        with self._lock:
            left, self._waiting = self._waiting, {}
        for waiting in left.values():
            waiting.set_exception(ClientError("its process ended: " + (self.work / "stderr").read_text()))

    def ask(self, do: str, place: Place, **arguments: object) -> Any:
        """Have the child do something; its answer. Raises ClientError, ClientHungError."""
        number = next(self._numbers)
        waiting: Future[Any] = Future()
        request = {"endpoint": place.endpoint, "bucket": place.bucket, **arguments}
        with self._lock:
            self._waiting[number] = waiting
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"id": number, "do": do, "with": request}, default=str) + "\n")
            self._process.stdin.flush()
        try:
            return waiting.result(PATIENCE_S)
        except TimeoutError as error:
            raise ClientHungError(f"{self.library} was still at '{do}' after {PATIENCE_S} s") from error

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._stderr.close()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def put(self, place: Place, key: str, path: Path) -> None:
        self.ask("put", place, key=key, path=path)

    def put_parts(self, place: Place, key: str, path: Path) -> None:
        self.ask("put_parts", place, key=key, path=path)

    def list(self, place: Place, prefix: str) -> dict[str, int]:
        found: dict[str, int] = self.ask("list", place, prefix=prefix)
        return found

    def copy(self, place: Place, key: str, to: Place, to_key: str) -> None:
        self.ask("copy", place, key=key, to_bucket=to.bucket, to_key=to_key)

    def delete(self, place: Place, key: str) -> None:
        self.ask("delete", place, key=key)

    def _get(self, place: Place, key: str, path: Path) -> None:
        self.ask("get", place, key=key, path=path)

    def _read(self, place: Place, key: str, path: Path) -> None:
        self.ask("read", place, key=key, path=path)

    def _get_range(self, place: Place, key: str, start: int, stop: int, path: Path) -> None:
        self.ask("get_range", place, key=key, start=start, stop=stop, path=path)

    def _read_listed(self, place: Place, prefix: str, folder: Path) -> dict[str, Path]:
        keys = self.ask("read_listed", place, prefix=prefix, folder=folder)
        return {key: folder / str(number) for number, key in enumerate(keys)}


class Boto3(Library):
    """The boto3 of this environment."""

    library = module = "boto3"


class Boto3WhenRequired(Boto3):
    """The same, told to leave checksums alone."""

    options = MappingProxyType({"checksums": "when_required"})


class OldBoto3(Boto3):
    """boto3 1.37, whose transfer manager asks and retries in other ways."""

    python = OLD_BIN / "python"

    @classmethod
    def missing(cls) -> str | None:
        if not any(OLD_BIN.parent.glob("lib/python*/site-packages/boto3-1.37.*")):
            return f"boto3 1.37 is not installed in .venv-old: {REMEDY}"
        return None


class OldBoto3WhenRequired(OldBoto3):
    """The same, told to leave checksums alone."""

    options = MappingProxyType({"checksums": "when_required"})


class S3fs(Library):
    """s3fs by `open`; its simplest read is `cat`."""

    library = module = "s3fs"

    def cat_listed(self, place: Place, prefix: str) -> dict[str, bytes]:
        """`ls`, then `cat` of all that was listed; by key."""
        folder = self.scratch()
        folder.mkdir()
        keys = self.ask("cat_listed", place, prefix=prefix, folder=folder)
        return {key: (folder / str(number)).read_bytes() for number, key in enumerate(keys)}


class PyArrow(Library):
    """pyarrow.fs.S3FileSystem."""

    library = module = "pyarrow"


class Crt(Library):
    """s3torchconnectorclient."""

    odd_key = "folder/abc.txt"  # its copy sends the source as it is, which its own HTTP refuses
    library = "crt"
    module = "s3torchconnectorclient"


class Aws(Driver):
    """`aws s3 cp` and its siblings."""

    folder = BIN

    @classmethod
    def missing(cls) -> str | None:
        return None if (cls.folder / "aws").exists() else f"the aws cli is not in {cls.folder}: {REMEDY}"

    def aws(self, place: Place, *words: str | Path) -> str:
        # by the interpreter, since the script's first line may be longer than the kernel reads
        return self.run(self.folder / "python", self.folder / "aws", "--endpoint-url", place.endpoint, *words)

    def put(self, place: Place, key: str, path: Path) -> None:
        self.aws(place, "s3", "cp", "--quiet", path, f"s3://{place.bucket}/{key}")

    put_parts = put  # from 8 MiB

    def list(self, place: Place, prefix: str) -> dict[str, int]:
        lines = self.aws(place, "s3", "ls", "--recursive", f"s3://{place.bucket}/{prefix}").splitlines()
        found = (line.split(maxsplit=3) for line in lines)
        return {key: int(size) for _, _, size, key in found}

    def copy(self, place: Place, key: str, to: Place, to_key: str) -> None:
        self.aws(place, "s3", "cp", "--quiet", f"s3://{place.bucket}/{key}", f"s3://{to.bucket}/{to_key}")

    def delete(self, place: Place, key: str) -> None:
        self.aws(place, "s3", "rm", "--quiet", f"s3://{place.bucket}/{key}")

    def _read(self, place: Place, key: str, path: Path) -> None:
        self.aws(place, "s3", "cp", "--only-show-errors", f"s3://{place.bucket}/{key}", path)

    def _get(self, place: Place, key: str, path: Path) -> None:
        self.aws(place, "s3api", "get-object", "--bucket", place.bucket, "--key", key, path)

    def _get_range(self, place: Place, key: str, start: int, stop: int, path: Path) -> None:
        wanted = f"bytes={start}-{stop - 1}"
        self.aws(place, "s3api", "get-object", "--bucket", place.bucket, "--key", key, "--range", wanted, path)

    def _read_listed(self, place: Place, prefix: str, folder: Path) -> dict[str, Path]:
        self.aws(place, "s3", "cp", "--recursive", "--only-show-errors", f"s3://{place.bucket}/{prefix}", folder)
        return _tree(folder, prefix)

    def sync(self, place: Place, prefix: str) -> dict[str, bytes]:
        """`aws s3 sync` into an empty folder, twice: the second finds nothing to do."""
        folder = self.scratch()
        command = ("s3", "sync", "--no-progress", f"s3://{place.bucket}/{prefix}", folder)
        self.aws(place, *command)
        again = self.aws(place, *command)
        if again:
            raise ClientError(f"the second sync still had to: {again}")
        return {key: path.read_bytes() for key, path in _tree(folder, prefix).items()}


class OldAws(Aws):
    """aws-cli of the time of boto3 1.37."""

    folder = OLD_BIN


class S5cmd(Driver):
    """s5cmd: AWS SDK for Go v1, parts in parallel."""

    @classmethod
    def missing(cls) -> str | None:
        return None if (BIN / "s5cmd").exists() else f"s5cmd is not installed: {REMEDY}"

    def s5cmd(self, place: Place, *words: str | Path) -> str:
        return self.run(BIN / "s5cmd", "--log", "error", "-r", "4", "--endpoint-url", place.endpoint, *words)

    def put(self, place: Place, key: str, path: Path) -> None:
        self.s5cmd(place, "cp", path, f"s3://{place.bucket}/{key}")

    def put_parts(self, place: Place, key: str, path: Path) -> None:
        self.s5cmd(place, "cp", "--part-size", "5", path, f"s3://{place.bucket}/{key}")

    def list(self, place: Place, prefix: str) -> dict[str, int]:
        command = (BIN / "s5cmd", "--json", "--endpoint-url", place.endpoint, "ls", f"s3://{place.bucket}/{prefix}*")
        found = [json.loads(line) for line in self.run(*command).splitlines()]
        return {entry["key"].removeprefix(f"s3://{place.bucket}/"): entry.get("size", 0) for entry in found}

    def copy(self, place: Place, key: str, to: Place, to_key: str) -> None:
        self.s5cmd(place, "cp", f"s3://{place.bucket}/{key}", f"s3://{to.bucket}/{to_key}")

    def delete(self, place: Place, key: str) -> None:
        self.s5cmd(place, "rm", f"s3://{place.bucket}/{key}")

    def _get(self, place: Place, key: str, path: Path) -> None:
        self.s5cmd(place, "cp", f"s3://{place.bucket}/{key}", path)

    def _read(self, place: Place, key: str, path: Path) -> None:
        self.s5cmd(place, "cp", "--part-size", "5", "--concurrency", "4", f"s3://{place.bucket}/{key}", path)

    def _get_range(self, place: Place, key: str, start: int, stop: int, path: Path) -> None:
        # It has no option for one range: what it reads in parts of 5 MiB it reads by ranges.
        self._read(place, key, path)
        path.write_bytes(path.read_bytes()[start:stop])

    def _read_listed(self, place: Place, prefix: str, folder: Path) -> dict[str, Path]:
        self.s5cmd(place, "cp", "--part-size", "5", f"s3://{place.bucket}/{prefix}*", f"{folder}/")
        return _tree(folder, prefix)


class Rclone(Driver):
    """rclone, which checks sizes, and hashes where an ETag looks like one."""

    @classmethod
    def missing(cls) -> str | None:
        return None if (BIN / "rclone").exists() else f"rclone is not installed: {REMEDY}"

    def rclone(self, place: Place, *words: str | Path) -> str:
        return self.run(*self._command(place, *words))

    def _command(self, place: Place, *words: str | Path) -> list[str | Path]:
        flags = ("--config", "", "--s3-provider", "Other", "--s3-env-auth", "--s3-region", "us-east-1")
        # as it comes it tries a failing HEAD a hundred times
        retries = ("--retries", "1", "--low-level-retries", "4")
        return [BIN / "rclone", *flags, "--s3-endpoint", place.endpoint, *retries, *words]

    def put(self, place: Place, key: str, path: Path) -> None:
        self.rclone(place, "copyto", path, f":s3:{place.bucket}/{key}")

    def put_parts(self, place: Place, key: str, path: Path) -> None:
        small = ("--s3-upload-cutoff", "5Mi", "--s3-chunk-size", "5Mi")
        self.rclone(place, *small, "copyto", path, f":s3:{place.bucket}/{key}")

    def list(self, place: Place, prefix: str) -> dict[str, int]:
        entries = json.loads(self.rclone(place, "lsjson", "-R", "--files-only", f":s3:{place.bucket}/{prefix}"))
        return {prefix + entry["Path"]: entry["Size"] for entry in entries}

    def copy(self, place: Place, key: str, to: Place, to_key: str) -> None:
        self.rclone(place, "copyto", f":s3:{place.bucket}/{key}", f":s3:{to.bucket}/{to_key}")

    def delete(self, place: Place, key: str) -> None:
        self.rclone(place, "deletefile", f":s3:{place.bucket}/{key}")

    def _get(self, place: Place, key: str, path: Path) -> None:
        self.rclone(place, "copyto", f":s3:{place.bucket}/{key}", path)

    def _read(self, place: Place, key: str, path: Path) -> None:
        streams = ("--multi-thread-cutoff", "5Mi", "--multi-thread-streams", "4", "--multi-thread-chunk-size", "5Mi")
        self.rclone(place, *streams, "copyto", f":s3:{place.bucket}/{key}", path)

    def _get_range(self, place: Place, key: str, start: int, stop: int, path: Path) -> None:
        words = ("cat", "--offset", str(start), "--count", str(stop - start), f":s3:{place.bucket}/{key}")
        command = self._command(place, *words)
        with path.open("wb") as out:
            done = subprocess.run(
                command, env=self.env, stdout=out, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False
            )
        if done.returncode:
            raise ClientError(f"rclone exited with {done.returncode}: {done.stderr.decode()}")

    def _read_listed(self, place: Place, prefix: str, folder: Path) -> dict[str, Path]:
        self.rclone(place, "copy", f":s3:{place.bucket}/{prefix}", folder)
        return _tree(folder, prefix)


def _tree(folder: Path, prefix: str) -> dict[str, Path]:
    """The files under a folder, by the key that each came from."""
    return {prefix + path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


CLIENTS: dict[str, type[Driver]] = {
    "boto3": Boto3,
    "boto3-when-required": Boto3WhenRequired,
    "boto3-1.37": OldBoto3,
    "boto3-1.37-when-required": OldBoto3WhenRequired,
    "aws": Aws,
    "aws-1.38": OldAws,
    "s5cmd": S5cmd,
    "rclone": Rclone,
    "s3fs": S3fs,
    "pyarrow": PyArrow,
    "crt": Crt,
}
