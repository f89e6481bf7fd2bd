"""What somebody asked an offline job to do, as one frozen value: kept in the catalog, and the body of the REST.

It checks what can be known without looking at a bucket or an ETL.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Kind = Literal["transform", "inspect", "sort"]
EngineName = Literal["local", "ray"]
_SCHEME = "s3://"


class Place(BaseModel):
    """A bucket and a path in it: a prefix if it is empty or ends in "/", else one key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: str
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Place:
        """Read `s3://BUCKET[/PATH]`. Raises ValueError."""
        rest = url.removeprefix(_SCHEME)
        bucket, _, path = rest.partition("/")
        if rest == url or not bucket:
            raise ValueError(f"{url!r} is not s3://BUCKET or s3://BUCKET/PATH")
        return cls(bucket=bucket, path=path)

    @property
    def is_prefix(self) -> bool:
        """Whether it stands for every key that begins with its path."""
        return not self.path or self.path.endswith("/")

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.path}" if self.path else f"{_SCHEME}{self.bucket}"


class Sorting(BaseModel):
    """How records become shards: `by` their key, a member's content, or shuffled by `seed`.

    `content` names the member whose text is the value ("cls" for NAME.cls), `values` what that text is. A shard is
    full at `shard_size` bytes of members or `shard_records` records; `shard_count` makes so many of like size. `shards`
    is the names' template, such as "shard-{000000..999999}.tar".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["key", "content", "shuffle"] = "key"
    content: str = ""
    values: Literal["text", "int", "float"] = "text"
    descending: bool = False
    seed: int = 0
    shard_size: int | None = Field(None, ge=1)
    shard_count: int | None = Field(None, ge=1)
    shard_records: int | None = Field(None, ge=1)
    shards: str = "shard-{000000..999999}.tar"

    @model_validator(mode="after")
    def _one_bound(self) -> Sorting:
        given = [each for each in (self.shard_size, self.shard_count, self.shard_records) if each is not None]
        if len(given) != 1:
            raise ValueError("say how large shards are: one of shard_size, shard_count and shard_records")
        if (self.by == "content") != bool(self.content):
            raise ValueError("sorting by content needs the member's extension in 'content', and only that does")
        return self


class Order(BaseModel):
    """One job as it was asked for; times in seconds, sizes in bytes.

    `args` is what `etl_args` takes: one stage's value, or a list with one element a stage. `keys` and `template` choose
    among the source's keys, relative to its prefix. `ext` maps extensions, `prefix` bounds the keys, `prepend` stands
    before every destination name. `where` is a predicate (see `transom.target.jobs.where`) over each object and, with
    `where_etl`, over what that pipeline makes of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "transform"
    source: Place
    destination: Place | None = None
    etl: str = ""
    args: Any = None
    ext: dict[str, str] = {}
    prefix: str = ""
    prepend: str = ""
    match: str | None = None
    keys: tuple[str, ...] | None = None
    template: str | None = None
    limit: int | None = Field(None, ge=1)
    where: str | None = None
    where_etl: str = ""
    where_args: Any = None
    concurrency: int | None = Field(None, ge=1, le=1024)
    dry_run: bool = False
    sync: bool = False
    force: bool = False
    continue_on_error: bool = True
    timeout_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    object_timeout_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    engine: EngineName = "local"
    sorting: Sorting | None = None

    @field_validator("source", mode="before", json_schema_input_type=str | Place)
    @classmethod
    def _source(cls, value: object) -> object:
        return Place.parse(value) if isinstance(value, str) else value

    @field_validator("destination", mode="before", json_schema_input_type=str | Place | None)
    @classmethod
    def _destination(cls, value: object) -> object:
        return Place.parse(value) if isinstance(value, str) else value

    @field_validator("args", "where_args")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        try:
            json.dumps(value, allow_nan=False)
        except ValueError as error:
            raise ValueError("a number in it is infinite, or none: JSON has no such numbers") from error
        return value

    @model_validator(mode="after")
    def _whole(self) -> Order:
        if (self.destination is None) != (self.kind == "inspect"):
            stray = self.destination is not None
            raise ValueError("a job that inspects has no destination" if stray else "a destination is missing")
        if self.kind == "transform" and not self.etl:
            raise ValueError("say which ETL or pipeline: etl")
        if (self.sorting is not None) != (self.kind == "sort"):
            raise ValueError("'sorting' belongs to a job that sorts, and it needs one")
        if self.keys is not None and self.template is not None:
            raise ValueError("give keys or a template of keys, not both")
        if self.sync and (self.limit is not None or self.keys is not None or self.template is not None):
            raise ValueError("sync is for whole prefixes: it can't tell what is gone with limit, keys or a template")
        return self

    @property
    def pipeline(self) -> tuple[str, ...]:
        """The ETLs' names, in order; empty where there is none."""
        return tuple(stage.strip() for stage in self.etl.split(">>")) if self.etl else ()
