"""One stage of one run as a runtime other than `plugin` sees it, and the call that a worker is sent for it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from transom.plugins.contract import Context
from transom.target.errors import (
    EtlFailed,
    EtlInputRejected,
    EtlSkipped,
    NoSuchBucket,
    NoSuchKey,
    SourceChanged,
    TargetError,
)
from transom.target.etl.plan import Plan, Stage
from transom.target.etl.spec import Spec, from_json
from transom.target.etl.stand_in import args_text
from transom.target.etl.transports.base import Call
from transom.target.store.base import ObjectInfo, ObjectReader, Store

PULLS = ("hpull", "hrev")
_READABLE = 0o444
_SUFFIX_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Job:
    """A stage with its spec and what it will be told. `reader` is the stored object's, for a first stage only."""

    stage: Stage
    spec: Spec
    context: Context
    reader: ObjectReader | None = None

    @property
    def pulled(self) -> bool:
        """Whether the worker fetches the object itself: only what is stored can be fetched."""
        return self.reader is not None and self.spec.transport in PULLS

    def call(self, path: str = "") -> Call:
        """The call for a worker; `path` is the object's own file, where the worker may read that."""
        context = self.context
        return Call(
            etl=self.stage.etl,
            bucket=context.bucket,
            key=context.key,
            etl_args=args_text(self.stage.args),
            content_type=context.content_type,
            size=context.size,
            path=path,
            pulled=self.pulled,
            max_output=self.spec.max_output,
            metadata=context.metadata,
        )


async def cause_of(error: TargetError, plan: Plan, source: ObjectInfo, store: Store) -> TargetError:
    """Why a run failed: a worker that fetches the object itself finds none once that is replaced, and blames it."""
    if not isinstance(error, EtlFailed | EtlInputRejected | EtlSkipped) or not any(map(_pulls, plan.stages)):
        return error
    try:
        if (await store.head(source.bucket, source.key)).etag == source.etag:
            return error
    except (NoSuchBucket, NoSuchKey):
        pass
    except Exception:  # whatever it is, it is not what this one failed of
        return error
    return SourceChanged("the object was replaced or deleted before its worker had fetched it")


def _pulls(stage: Stage) -> bool:
    return bool(stage.spec) and from_json(stage.spec).transport in PULLS


@contextmanager
def shared(reader: ObjectReader, folder: Path, own: Path) -> Iterator[str]:
    """Give a stored object a name in a folder that a worker may read, while the block runs; "" where none can be had.

    Only for files below `own`, the data folder: others may change in place, and aren't ours to let anybody read. The
    name keeps the key's extension: programs go by it.
    """
    path = reader.path
    name = folder / (secrets.token_hex(8) + suffix_of(reader.info.key))
    if path is None or not path.is_relative_to(own) or not _link(path, name):
        yield ""
        return
    try:
        yield str(name)
    finally:
        with suppress(FileNotFoundError):
            name.unlink()


def suffix_of(key: str) -> str:
    """The extension of a key, with its dot, for a file's name; empty where it is no plain one."""
    suffix = Path(key).suffix
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= _SUFFIX_LENGTH else ""


def _link(path: Path, name: Path) -> bool:
    """Link a file of ours under a name, for anybody to read who sees that; False where it can't be done."""
    try:
        os.link(path, name)
        name.chmod(_READABLE)
    except OSError:  # another disk, or the worker's folder went with it
        return False
    return True
