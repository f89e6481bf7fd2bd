"""A Transom plugin with one transformer, `vowels`."""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, Field

from transom.plugins import Context, Transformer, hookimpl


class VowelsArgs(BaseModel, extra="forbid"):
    by: str = Field(default="*", max_length=1, pattern=r"^[ -~]*$", json_schema_extra={"first": True})


class Vowels(Transformer):
    """Replaces every vowel by a character, or removes it when that is empty."""

    name = "vowels"
    Args = VowelsArgs

    def transform_stream(self, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
        by = context.args.by.encode()
        table = bytes.maketrans(b"aeiouAEIOU", by * 10) if by else None
        for chunk in chunks:
            yield chunk.translate(table, b"" if by else b"aeiouAEIOU")


@hookimpl
def transom_transformers() -> list[Transformer]:
    return [Vowels()]
