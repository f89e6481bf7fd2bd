"""`compress` and `decompress`: gzip, bz2 and zstd, streamed; what comes out of a small input is bounded."""

from __future__ import annotations

import bz2
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from transom.plugins.contract import Context, Reject, Transformer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1024 * 1024
GIB = 1024 * MIB
_PIECE_SIZE = MIB
_RATIO_FLOOR = 16 * MIB  # output below this is let through at any ratio: a small file of zeros is no bomb
_GZIP_WBITS = 16 + zlib.MAX_WBITS
_ZSTD_WINDOW_LOG_MAX = 27  # 128 MiB, what the zstd tool itself accepts unasked

Algorithm = Literal["gzip", "bz2", "zstd"]
_ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
_CONTENT_TYPES: dict[str, str] = {"gzip": "application/gzip", "bz2": "application/x-bzip2", "zstd": "application/zstd"}
_EXTENSIONS: dict[str, str] = {"gzip": "gz", "bz2": "bz2", "zstd": "zst"}
_MAGIC: dict[str, bytes] = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "zstd": b"\x28\xb5\x2f\xfd"}
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # the last three bytes of a skippable frame's magic; the first is 0x50..0x5f
_MAGIC_LENGTH = 4
_LEVELS: dict[str, tuple[int, int, int]] = {"gzip": (0, 9, 6), "bz2": (1, 9, 9), "zstd": (1, 19, 3)}  # low, high, usual


class CompressArgs(BaseModel):
    """Arguments of `compress`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Algorithm = Field(default="gzip", description="The format.", json_schema_extra={"first": True})
    level: int | None = Field(
        default=None, ge=0, le=19, description="Effort: gzip 0 to 9 (6), bz2 1 to 9 (9), zstd 1 to 19 (3)."
    )

    @model_validator(mode="after")
    def _level_fits(self) -> CompressArgs:
        low, high, _ = _LEVELS[self.algorithm]
        if self.level is not None and not low <= self.level <= high:
            raise ValueError(f"level {self.level} is not one of {self.algorithm}'s, {low} to {high}")
        return self


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class Compress(Transformer):
    """Returns the object compressed; the same input gives the same bytes."""

    name = "compress"
    Args = CompressArgs
    releases_gil = True

    def content_type(self, context: Context) -> str:
        """The compressed format's own: what is inside isn't said."""
        return _CONTENT_TYPES[context.args.algorithm]

    def output_extension(self, context: Context) -> str | None:
        """The algorithm's."""
        return _EXTENSIONS[context.args.algorithm]

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Compress chunk by chunk into one member or frame."""
        return compressed(chunks, context.args)


def compressed(chunks: Iterable[bytes], args: CompressArgs) -> Iterator[bytes]:
    """Yield `chunks` compressed into one member or frame."""
    compressor = _compressor(args)
    for chunk in chunks:
        yield compressor.compress(chunk)
    yield compressor.flush()


def _compressor(args: CompressArgs) -> _Compressor:
    level = _LEVELS[args.algorithm][2] if args.level is None else args.level
    if args.algorithm == "gzip":
        return zlib.compressobj(level, zlib.DEFLATED, _GZIP_WBITS)  # zlib writes 0 for the header's time
    if args.algorithm == "bz2":
        return bz2.BZ2Compressor(level)
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return zstd.ZstdCompressor(options=options)


class DecompressArgs(BaseModel):
    """Arguments of `decompress`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["auto", "gzip", "bz2", "zstd"] = Field(
        default="auto", description="The format; auto goes by the first bytes.", json_schema_extra={"first": True}
    )
    max_output: int = Field(default=GIB, gt=0, le=1024 * GIB, description="Most bytes to put out.")
    max_ratio: int = Field(
        default=200, gt=0, le=1_000_000, description="Most bytes out for a byte in, once past 16 MiB of output."
    )


class Decompress(Transformer):
    """Returns the object decompressed; several members or frames in a row come out joined."""

    name = "decompress"
    Args = DecompressArgs
    releases_gil = True

    def content_type(self, context: Context) -> str:
        """Nothing is known of what was inside."""
        return "binary/octet-stream"

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Decompress chunk by chunk, within the bounds. Raises Reject for bad or cut-short input."""
        return decompressed(chunks, context.args)


def decompressed(chunks: Iterable[bytes], args: DecompressArgs) -> Iterator[bytes]:
    """Yield `chunks` decompressed, within the bounds. Raises Reject for bad or cut-short input."""
    decoding = _Decoding(args)
    for chunk in chunks:
        yield from decoding.feed(chunk)
    decoding.end()


def algorithm_of(head: bytes) -> Algorithm | None:
    """Name what the first bytes (four are enough) say that data is compressed with, None for nothing known."""
    return next(
        (algorithm for algorithm in _ALGORITHMS if len(head) >= _MAGIC_LENGTH and _starts(algorithm, head)), None
    )


class _Decoder(Protocol):
    """One member or frame; the interface that bz2's decompressor has."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipDecoder:
    """zlib's decompressor behind bz2's interface."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP_WBITS)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        # After a full piece zlib may hold back output though it has taken all of its input.
        return not self._full and not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        output = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self._full = len(output) == max_length
        return output


def _zstd_decoder() -> _Decoder:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX})


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": _GzipDecoder,
    "bz2": bz2.BZ2Decompressor,
    "zstd": _zstd_decoder,
}
_BROKEN = (zlib.error, OSError, ValueError, EOFError, zstd.ZstdError)


class _Decoding:
    """The state of one decompression: the member under way and what was taken and given so far."""

    def __init__(self, args: DecompressArgs) -> None:
        self._args = args
        self._algorithm: str = "" if args.algorithm == "auto" else args.algorithm
        self._decoder: _Decoder | None = None
        self._pending = b""  # first bytes of a member, too few to tell what it is
        self._members = 0
        self._taken = 0
        self._given = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what `chunk` decompresses to, in bounded pieces."""
        self._taken += len(chunk)
        data = self._pending + chunk
        self._pending = b""
        while data:
            if self._decoder is None:
                data = self._begin(data)
                if self._decoder is None:
                    return
            decoder = self._decoder
            yield from self._drain(decoder, data)
            data = b""
            if decoder.eof:
                data = decoder.unused_data
                self._decoder = None
                self._members += 1

    def end(self) -> None:
        """Check that the input ended where a member does."""
        if self._decoder is not None or not self._members:
            raise Reject(f"the {self._algorithm or 'compressed'} data is cut short")
        if self._pending:
            self._refuse_trailing(self._pending)

    def _begin(self, data: bytes) -> bytes:
        """Open the next member, once enough of it is here to see what it is; return what it starts with."""
        if self._members and self._algorithm == "gzip":
            data = data.lstrip(b"\0")  # gzip allows zero padding after a member
        if not data:
            return b""
        if len(data) < _MAGIC_LENGTH:
            self._pending = data
            return b""
        if not self._algorithm:
            self._algorithm = _recognised(data)
        if self._members and not _starts(self._algorithm, data):
            self._refuse_trailing(data)
        self._decoder = _DECODERS[self._algorithm]()
        return data

    def _refuse_trailing(self, data: bytes) -> None:
        raise Reject(f"after the {self._algorithm} data comes something else: {data[:_MAGIC_LENGTH].hex()}")

    def _drain(self, decoder: _Decoder, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                output = decoder.decompress(data, _PIECE_SIZE)
            except _BROKEN as error:
                raise Reject(f"the {self._algorithm} data is corrupt: {error}") from error
            data = b""
            if output:
                self._check_bounds(len(output))
                yield output
            if decoder.eof or decoder.needs_input:
                return

    def _check_bounds(self, more: int) -> None:
        self._given += more
        if self._given > self._args.max_output:
            raise Reject(f"the object decompresses to more than {self._args.max_output} bytes (max_output)")
        if self._given > max(_RATIO_FLOOR, self._taken * self._args.max_ratio):
            raise Reject(f"the object decompresses to more than {self._args.max_ratio} times its size (max_ratio)")


def _starts(algorithm: str, data: bytes) -> bool:
    skippable = algorithm == "zstd" and 0x50 <= data[0] <= 0x5F and data[1:4] == _ZSTD_SKIPPABLE  # noqa: PLR2004 (RFC 8878, 3.1.2)
    return skippable or data.startswith(_MAGIC[algorithm])


def _recognised(data: bytes) -> str:
    algorithm = algorithm_of(data)
    if algorithm is None:
        raise Reject("the object is not gzip, bz2 or zstd")
    return algorithm
