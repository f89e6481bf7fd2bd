"""The transformers that come with Transom, registered through the same hook as anyone else's.

A module whose library isn't installed is listed as unavailable, with the extra to install.
"""

from __future__ import annotations

from collections.abc import Iterator

from transom.plugins.builtin import compress, digest, identity, text, tiny
from transom.plugins.contract import Transformer
from transom.plugins.hookspecs import Unavailable, hookimpl


@hookimpl
def transom_transformers() -> Iterator[Transformer | Unavailable]:
    """Yield the built-in transformers."""
    yield from (identity.Echo(), identity.HelloWorld())
    yield from (digest.Md5(), digest.Hash())
    yield from (tiny.Upper(), tiny.Reverse(), tiny.Append())
    yield _image()
    yield from (compress.Compress(), compress.Decompress(), text.Text())


def _image() -> Transformer | Unavailable:
    try:
        from transom.plugins.builtin.image import Image
    except ImportError:
        return Unavailable("image", "it needs Pillow: pip install 'transom[image]'")
    return Image()
