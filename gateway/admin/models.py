"""What the management REST takes and gives, as schemas: validation and OpenAPI both come from here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EtlBody(_Body):
    """An ETL as it is asked for."""

    plugin: str = Field(description="The transformer's name; see /plugins")
    args: dict[str, Any] = Field(default_factory=dict, description="Arguments laid under those of a request")
    cache: bool = Field(default=True, description="Whether whole GETs may be kept in the result cache")
    concurrency: int | None = Field(default=None, ge=1, le=1024, description="Runs at once on a target")
    timeout_s: float | None = Field(default=None, gt=0, description="Deadline of one object, in seconds")
    deterministic: bool | None = Field(default=None, description="Overrides what the transformer declares")


class WorkerShown(BaseModel):
    """One worker of an ETL, as its keeper last said."""

    target: str
    revision: int
    state: str
    since: float
    restarts: int
    message: str
    pid: int
    container: str
    confinement: str = Field(description="What confines it: a container, or the sandbox and what that is made of")
    cpu_s: float
    memory_bytes: int


class PendingShown(BaseModel):
    """A revision that is being started beside the one that serves."""

    revision: int
    spec: dict[str, Any]


class NumbersShown(BaseModel):
    """What an ETL did since the server started; seconds are of whole runs, None before the first."""

    objects: int
    bytes_in: int
    bytes_out: int
    errors: dict[str, int] = Field(description="Failed runs by code")
    p50_s: float | None
    p99_s: float | None
    queue: int = Field(description="Requests that wait for a place just now")


class ServiceShown(BaseModel):
    """What whoever runs the service of a `url` ETL needs to know."""

    secret: str = Field(description="What Transom-Signature is verified with")
    target_url: str = Field(description="AIS_TARGET_URL: where it fetches objects; empty if it fetches none")


class EtlShown(BaseModel):
    """An ETL as it is."""

    name: str
    runtime: str
    plugin: str
    args: dict[str, Any]
    spec: dict[str, Any] = Field(description="The normalised spec; of source code, the digest")
    cache: bool
    concurrency: int | None
    timeout_s: float | None
    deterministic: bool | None
    state: Literal["initializing", "running", "stopped", "failed"]
    message: str
    kind: Literal["explicit", "implicit"]
    owner: str
    revision: int
    changed_ns: int
    pending: PendingShown | None
    workers: list[WorkerShown]
    numbers: NumbersShown
    service: ServiceShown | None
    confinement: str = Field(description="What confines the programs of one that has no workers; else empty")


class EtlsShown(BaseModel):
    """ETLs as they are."""

    etls: list[EtlShown]


class ViewBody(_Body):
    """A view as it is asked for."""

    bucket: str = Field(description="The source bucket")
    etl: str = Field(description="The pipeline: one ETL or several, 'a>>b'")
    args: Any = Field(default=None, description="One ETL: its arguments. A pipeline: a list, one element a stage")
    ext: dict[str, str] = Field(default_factory=dict, description="Extensions to rename: {'jpg': 'webp'}")
    sizes: Literal["source", "materialise"] = Field(
        default="materialise", description="What LIST shows for unmade results: true sizes, or the sources'"
    )


class ViewShown(BaseModel):
    """A view as it is."""

    name: str
    bucket: str
    etl: str
    args: list[Any]
    ext: dict[str, str]
    sizes: str
    owner: str
    created_ns: int


class JobShown(BaseModel):
    """An offline job as it is; times are epoch seconds, 0 for not yet."""

    id: str
    order: dict[str, Any] = Field(description="What was asked, without what is as by default, and without keys")
    keys: int = Field(description="How many keys the order names")
    owner: str
    state: Literal["queued", "running", "done", "failed", "aborted"]
    phase: str = Field(description="What it is doing just now")
    message: str = Field(description="Why it failed")
    total: int = Field(description="Objects to be decided; 0 until the source was listed")
    written: int = Field(description="In a dry run, those that would be")
    unchanged: int = Field(description="Up to date already; of a job that inspects, good")
    skipped: int = Field(description="Left out by a transformer or a predicate")
    failed: int
    deleted: int = Field(description="By sync: gone from the source")
    bytes_in: int
    bytes_out: int
    runs: int = Field(description="How often it was started: once, and again after a restart or for its errors")
    created_s: float
    started_s: float
    ended_s: float


class JobsShown(BaseModel):
    """Jobs as they are, the newest first."""

    jobs: list[JobShown]
    next: int | None = Field(description="What to give as 'before' for the next page; null on the last one")


class JobErrorShown(BaseModel):
    """An object that a job failed on."""

    key: str
    stage: str = Field(description="The ETL whose doing it was; empty where it was none's")
    code: str
    message: str


class JobErrorsShown(BaseModel):
    """A page of the objects that a job failed on, in the order of the source."""

    errors: list[JobErrorShown]
    next: int | None = Field(description="What to send as 'after' for the next page; null on the last")


class PluginShown(BaseModel):
    """An installed transformer."""

    name: str
    version: str
    distribution: str
    deterministic: bool
    releases_gil: bool
    extension: str | None
    args_schema: dict[str, Any]
    doc: str


class ErrorShown(BaseModel):
    """Why a call failed."""

    code: str
    message: str
    request_id: str
