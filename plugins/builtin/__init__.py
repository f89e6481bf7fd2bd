"""The transformers that come with Transom, registered through the same hook as anyone else's.

A module whose library isn't installed is listed as unavailable, with the extra to install.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator

from transom.plugins.builtin import compress, digest, identity, redact, rename, tar, tar2tf, text, tiny
from transom.plugins.contract import Transformer
from transom.plugins.hookspecs import Unavailable, hookimpl

_OPTIONAL = (
    # transformer, module:class, extra, modules it needs and what they are called
    ("image", "image:Image", "image", {"PIL": "Pillow"}),
    ("ffmpeg", "ffmpeg:Ffmpeg", "audio", {"av": "PyAV"}),
    ("split_audio", "split_audio:SplitAudio", "audio", {"av": "PyAV"}),
    ("parquet", "parquet:Parquet", "arrow", {"pyarrow": "PyArrow"}),
    ("sql", "sql:Sql", "sql", {"duckdb": "DuckDB", "pyarrow": "PyArrow"}),
    ("faces", "faces:Faces", "vision", {"cv2": "OpenCV", "PIL": "Pillow"}),
    ("torchvision", "torchvision:Torchvision", "torch", {"torchvision": "torchvision", "PIL": "Pillow"}),
)


@hookimpl
def transom_transformers() -> Iterator[Transformer | Unavailable]:
    """Yield the built-in transformers."""
    yield from (identity.Echo(), identity.HelloWorld())
    yield from (digest.Md5(), digest.Hash())
    yield from (tiny.Upper(), tiny.Reverse(), tiny.Append())
    yield from (compress.Compress(), compress.Decompress())
    yield from (text.Text(), redact.Redact(), rename.Rename())
    yield from (tar.Tar(), tar2tf.Tar2Tf())
    for name, where, extra, libraries in _OPTIONAL:
        # Looking is enough: heavy libraries are imported when an object comes.
        lacking = [library for module, library in libraries.items() if importlib.util.find_spec(module) is None]
        if lacking:
            yield Unavailable(name, f"it needs {' and '.join(lacking)}: pip install 'transom[{extra}]'")
        else:
            yield _made(where)


def every_transformer() -> Iterator[Transformer]:
    """Yield all that there are, to document them: those too whose libraries aren't installed, Pillow apart."""
    yield from (each for each in transom_transformers() if isinstance(each, Transformer))
    for _, where, _, libraries in _OPTIONAL:
        if any(importlib.util.find_spec(module) is None for module in libraries):
            yield _made(where)


def _made(where: str) -> Transformer:
    module, _, kind = where.partition(":")
    made: Transformer = getattr(importlib.import_module(f"{__name__}.{module}"), kind)()
    return made
