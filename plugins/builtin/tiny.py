"""`upper`, `reverse` and `append`: one-liners that make what a pipeline did easy to see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field

from transom.plugins.contract import Context, Transformer


class Upper(Transformer):
    """Returns the object with ASCII letters in upper case."""

    name = "upper"

    def output_size(self, context: Context) -> int | None:
        """The input's."""
        return context.size

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Change chunk by chunk."""
        for chunk in chunks:
            yield chunk.upper()


class Reverse(Transformer):
    """Returns the object's bytes in reverse order."""

    name = "reverse"

    def output_size(self, context: Context) -> int | None:
        """The input's."""
        return context.size

    def transform(self, data: bytes, context: Context) -> bytes:
        """Turn the whole around."""
        return data[::-1]


class AppendArgs(BaseModel):
    """Arguments of `append`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(
        default="!", max_length=65536, description="What to append, as UTF-8.", json_schema_extra={"first": True}
    )


class Append(Transformer):
    """Returns the object followed by a text."""

    name = "append"
    Args = AppendArgs

    def output_size(self, context: Context) -> int | None:
        """The input's and the text's."""
        return None if context.size is None else context.size + len(context.args.text.encode())

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """Pass the chunks on, then the text."""
        yield from chunks
        yield context.args.text.encode()
