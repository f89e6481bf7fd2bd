"""The decorator that uploads a class or function: what source it sends."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stand_in import ACCESS_KEY, SECRET_KEY, StandIn

from transom.client import code
from transom.client.admin import AdminClient, AdminError
from transom.client.code import etl, source_of

MODULE = '''
import re
from dataclasses import dataclass

from transom.client import code
from transom.client.code import etl as uploads

client = None


def other(thing):
    return thing


@uploads(
    client,
    name="shout",
)
@other
def shout(data, context):
    """Say it louder."""
    return data.upper()


@code.etl(client)
@dataclass
class Digest:
    algorithm: str = "md5"

    def transform(self, data, context):
        return data


class Outer:
    class Inner:
        def transform(self, data):
            return data
'''


@pytest.fixture
def client(server: StandIn) -> Iterator[AdminClient]:
    with AdminClient(server.endpoint, ACCESS_KEY, SECRET_KEY) as client:
        yield client


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module above, imported with decorators that upload nothing."""
    (tmp_path / "users_code.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    keep: Callable[..., Any] = lambda *_, **__: lambda thing: thing  # noqa: E731
    monkeypatch.setattr(code, "etl", keep)
    imported = importlib.import_module("users_code")
    monkeypatch.undo()
    imported.uploads = etl  # type: ignore[attr-defined]
    yield imported
    del sys.modules["users_code"]


def test_what_is_decorated_is_uploaded_and_stays_as_it_is(client: AdminClient, server: StandIn) -> None:
    @etl(client, requirements=["regex"], args={"a": 1})
    def Shout(data: bytes, context: Any) -> bytes:  # noqa: N802
        return data.upper()

    assert Shout(b"a", None) == b"A"
    ((query, text, _),) = server.posted
    spec = json.loads(text)
    assert query == {"wait": "true"}
    assert (spec["name"], spec["args"]) == ("shout", {"a": 1})
    assert (spec["runtime"]["entry"], spec["runtime"]["requirements"]) == ("Shout", ["regex"])
    source = spec["runtime"]["code"]
    assert source.startswith("def Shout(data: bytes, context: Any) -> bytes:")
    assert "etl" not in source


def test_a_failed_start_is_raised(client: AdminClient, server: StandIn) -> None:
    server.failing = "No module named 'torch'"
    with pytest.raises(AdminError, match="torch"):

        @etl(client, name="x")
        class Shout:
            def transform(self, data: bytes) -> bytes:
                return data


def test_our_decorators_are_left_out_and_no_others(module: ModuleType) -> None:
    assert source_of(module.shout).startswith("@other\ndef shout(data, context):\n")
    assert source_of(module.Digest).startswith("@dataclass\nclass Digest:\n")
    assert source_of(module.Outer.Inner).startswith("class Inner:\n    def transform")  # no longer indented


def test_a_whole_module_goes_along_without_our_decorators(module: ModuleType) -> None:
    source = source_of(module.Digest, module=True)
    assert source == MODULE.replace('@uploads(\n    client,\n    name="shout",\n)\n', "").replace(
        "@code.etl(client)\n", ""
    )
    compile(source, "users_code", "exec")
    with pytest.raises(ValueError, match=r"Outer.Inner is not at the top of its module"):
        source_of(module.Outer.Inner, module=True)


@pytest.mark.parametrize("thing", [5, len, "text"])
def test_what_has_no_source_is_refused(thing: Any) -> None:
    with pytest.raises(ValueError, match="a class or a function"):
        source_of(thing)


def test_what_was_typed_nowhere_is_refused() -> None:
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec("def shout(data): return data", names)
    with pytest.raises(ValueError, match="shout has no source"):
        source_of(names["shout"])
