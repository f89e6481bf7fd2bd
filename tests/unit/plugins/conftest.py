"""How the tests of plugins run one transformer over bytes in hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from transom.plugins.args import parse_args
from transom.plugins.contract import Context, Installed, Transformer
from transom.plugins.shapes import stream


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., bytes]:
    """Run a transformer over `data`, a whole or pieces, with `args` as a request would give them."""

    def run(
        transformer: Transformer,
        data: bytes | Sequence[bytes],
        args: object = None,
        *,
        key: str = "key",
        content_type: str = "binary/octet-stream",
        installed: Installed | None = None,
        deadline: float = float("inf"),
    ) -> bytes:
        chunks = [data] if isinstance(data, bytes) else data
        context = Context(
            bucket="bucket",
            key=key,
            etl=transformer.name,
            content_type=content_type,
            size=sum(map(len, chunks)),
            args=parse_args(transformer, args),
            deadline=deadline,
            scratch=tmp_path,
        )
        if installed is not None:
            context = replace(context, transformers=installed)
        return b"".join(stream(transformer, chunks, context, scratch=tmp_path))

    return run
