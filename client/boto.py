"""ETLs on stock boto3: adds the `etl` and `etl_args` parameters to GetObject and HeadObject before they are signed.

client = boto3.client("s3", endpoint_url=...)
add_etl(client, "resize>>webp", [{"width": 224}, None])   # every read, download_file and presigned URL from now on
get_object(client, Bucket="photos", Key="cat.jpg", etl="md5")   # this one read
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from botocore.awsrequest import AWSRequest

Pipeline = str | Sequence[str]

_EVENTS = ("before-sign.s3.GetObject", "before-sign.s3.HeadObject")
_ALWAYS_ID = "transom-etl "
_ONCE_ID = "transom-etl-once "

# The pipeline of the call under way. botocore signs in the calling thread, so a value set around the call reaches it.
_once: ContextVar[str | None] = ContextVar("transom_etl_once", default=None)


def etl_query(pipeline: Pipeline, args: Any = None) -> str:
    """The query string that asks for a pipeline ("a>>b", or the names), percent-encoded.

    `args` is any JSON value: one ETL's arguments, or for a pipeline a list with one element a stage.
    """
    text = pipeline if isinstance(pipeline, str) else ">>".join(pipeline)
    if not text:
        raise ValueError("a pipeline names at least one ETL")
    query = f"etl={quote(text, safe='')}"
    return query if args is None else f"{query}&etl_args={quote(json.dumps(args), safe='')}"


def add_etl(client: Any, pipeline: Pipeline, args: Any = None) -> Callable[[], None]:
    """Make every GetObject and HeadObject of a boto3 S3 client ask for the pipeline; return what undoes it.

    It holds for `download_file`, paginated and threaded reads too. A second call takes the place of the first.
    Presigned URLs carry it when the client signs with `signature_version="s3v4"`, which for a custom endpoint boto3
    must be told.
    """
    query = etl_query(pipeline, args)
    active = True

    def before_sign(request: AWSRequest, **_: object) -> None:
        if active and _once.get() is None:
            _append(request, query)

    def undo() -> None:
        # By a flag: unregistering would go by the id, and take away whatever has replaced this one.
        nonlocal active
        active = False

    for event in _EVENTS:
        client.meta.events.unregister(event, unique_id=_ALWAYS_ID + event)
        client.meta.events.register(event, before_sign, unique_id=_ALWAYS_ID + event)
    return undo


def get_object(client: Any, *, etl: Pipeline, etl_args: Any = None, **parameters: Any) -> dict[str, Any]:
    """`client.get_object(**parameters)` through a pipeline, this once; other threads' calls are not touched."""
    with _asking(client, etl, etl_args):
        response: dict[str, Any] = client.get_object(**parameters)
    return response


def head_object(client: Any, *, etl: Pipeline, etl_args: Any = None, **parameters: Any) -> dict[str, Any]:
    """`client.head_object(**parameters)` through a pipeline, this once."""
    with _asking(client, etl, etl_args):
        response: dict[str, Any] = client.head_object(**parameters)
    return response


@contextmanager
def _asking(client: Any, pipeline: Pipeline, args: Any) -> Iterator[None]:
    for event in _EVENTS:
        # A unique id is registered once, however often it is asked for, and across all events.
        client.meta.events.register(event, _add_once, unique_id=_ONCE_ID + event)
    token = _once.set(etl_query(pipeline, args))
    try:
        yield
    finally:
        _once.reset(token)


def _add_once(request: AWSRequest, **_: object) -> None:
    query = _once.get()
    if query is not None:
        _append(request, query)


def _append(request: AWSRequest, query: str) -> None:
    # Into the URL, not `request.params`: botocore signs either the URL's query or the params, never both, and
    # GetObject has parameters of its own (versionId, partNumber, response-*) in the URL.
    url = str(request.url)
    request.url = f"{url}{'&' if '?' in url else '?'}{query}"
