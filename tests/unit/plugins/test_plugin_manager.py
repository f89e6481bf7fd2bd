"""Plugins are found, checked and refused by name; a missing library doesn't stop the start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, Field

from transom.plugins import Context, Transformer, Unavailable, hookimpl, manager
from transom.plugins.checks import valid_name
from transom.plugins.errors import LoadError

BUILTIN = {
    "append", "compress", "decompress", "echo", "faces", "ffmpeg", "hash", "hello_world", "image", "md5", "parquet",
    "redact", "rename", "reverse", "split_audio", "sql", "tar", "tar2tf", "text", "upper",
}  # fmt: skip
HEAVY = {"torchvision"}  # its library takes gigabytes: the test environment may go without


class Good(Transformer):
    name = "good"

    def transform(self, data: bytes, context: Context) -> bytes:
        return data


def plugin(*transformers: object, name: str = "mine") -> object:
    @hookimpl
    def transom_transformers() -> Iterable[Any]:
        return transformers

    return SimpleNamespace(__name__=name, transom_transformers=transom_transformers)


def changed(**attributes: object) -> Transformer:
    made: Transformer = type("Changed", (Good,), attributes)()
    return made


def test_the_built_in_transformers_come_through_the_same_door() -> None:
    found = manager.load(entry_points=False)
    assert set(found) - HEAVY == BUILTIN
    assert list(found) == sorted(found)
    assert found["md5"].name == "md5"
    assert found.get("nothing") is None
    assert len(found) == len(list(found))
    assert found.origin("md5") == manager.Origin("builtin", "transom", metadata.version("transom"))
    assert set(found.missing) == HEAVY - set(found)


def test_an_extra_plugin_is_loaded_and_its_origin_known() -> None:
    good = Good()
    found = manager.load([plugin(good)], entry_points=False)
    assert found["good"] is good
    assert str(found.origin("good")) == "plugin 'mine'"


def test_the_registry_is_frozen() -> None:
    found = manager.load(entry_points=False)
    for operation in ("__setitem__", "__delitem__", "pop", "update"):
        assert not hasattr(found, operation)
    with pytest.raises(TypeError):
        found.missing["x"] = "y"  # type: ignore[index]


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "a" * 32, "a-", "a_"])
def test_names_by_the_rule_pass(name: str) -> None:
    assert valid_name(name)
    assert name in manager.load([plugin(changed(name=name))], entry_points=False)


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a--b", "a b", "a>b", "é", "a" * 33, "a\n"])
def test_names_against_the_rule_are_refused(name: str) -> None:
    assert not valid_name(name)
    with pytest.raises(LoadError, match="plugin 'mine': transformer name"):
        manager.load([plugin(changed(name=name))], entry_points=False)


def two_shapes(self: Transformer, chunks: Iterable[bytes], context: Context) -> Iterator[bytes]:
    yield b""


async def async_size(self: Transformer, context: Context) -> int:
    return 0


class TwoFirst(BaseModel):
    a: int = Field(default=1, json_schema_extra={"first": True})
    b: int = Field(default=1, json_schema_extra={"first": True})


class NoSchema(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    a: ModuleType | None = None


@pytest.mark.parametrize(
    ("transformer", "message"),
    [
        (changed(transform=Transformer.transform), "exactly one of transform, .*it has none of them"),
        (changed(transform_stream=two_shapes), "exactly one of .*it has transform and transform_stream"),
        (changed(version=1), "version must be a non-empty string"),
        (changed(deterministic="yes"), "deterministic must be True or False"),
        (changed(isolated=1), "isolated must be True or False"),
        (changed(memory_limit="1GiB"), "memory_limit must be a number of bytes"),
        (changed(extension=".jpg"), "extension must be like 'jpg'"),
        (changed(output_size=async_size), "output_size must not be async"),
        (changed(Args=dict), "Args must be a pydantic model class"),
        (changed(Args=TwoFirst), "more than one argument is marked first: a, b"),
        (changed(Args=NoSchema), "Args has no JSON schema"),
        (Good, "Good is a class; give an instance: Good()"),
        ("good", "'good' is no transom.plugins.Transformer"),
        (type("Nameless", (Transformer,), {"transform": Good.transform})(), "Nameless has no name"),
    ],
)
def test_a_transformer_against_the_contract_stops_the_start(transformer: object, message: str) -> None:
    with pytest.raises(LoadError, match=f"plugin 'mine': .*{message}"):
        manager.load([plugin(transformer)], entry_points=False)


def test_a_name_taken_twice_names_both_plugins() -> None:
    with pytest.raises(LoadError, match="'good' comes from both plugin 'one' and plugin 'two'"):
        manager.load([plugin(Good(), name="one"), plugin(Good(), name="two")], entry_points=False)
    with pytest.raises(LoadError, match=r"'md5' comes from both plugin 'builtin' \(transom .*\) and plugin 'mine'"):
        manager.load([plugin(changed(name="md5"))], entry_points=False)


def test_a_misspelt_hook_stops_the_start() -> None:
    @hookimpl
    def transom_transformer() -> list[Transformer]:
        return [Good()]

    misspelt = SimpleNamespace(__name__="mine", transom_transformer=transom_transformer)
    with pytest.raises(LoadError, match=r"plugin 'mine' does not fit the hooks \(transom_transformers\).*unknown hook"):
        manager.load([misspelt], entry_points=False)


def test_a_hook_with_other_parameters_stops_the_start() -> None:
    @hookimpl
    def transom_transformers(config: object) -> list[Transformer]:
        return [Good()]

    wrong = SimpleNamespace(__name__="mine", transom_transformers=transom_transformers)
    with pytest.raises(LoadError, match=r"plugin 'mine' does not fit the hooks.*config"):
        manager.load([wrong], entry_points=False)


def test_a_plugin_without_a_marked_hook_stops_the_start() -> None:
    unmarked = SimpleNamespace(__name__="mine", transom_transformers=lambda: [Good()])
    with pytest.raises(LoadError, match="plugin 'mine' implements no hook: mark a function with"):
        manager.load([unmarked], entry_points=False)


def test_a_plugin_given_twice_stops_the_start() -> None:
    mine = plugin(Good())
    with pytest.raises(LoadError, match="plugin 'mine'"):
        manager.load([mine, mine], entry_points=False)


def test_a_hook_that_raises_stops_the_start() -> None:
    @hookimpl
    def transom_transformers() -> list[Transformer]:
        raise RuntimeError("no licence")

    with pytest.raises(LoadError, match="plugin 'mine' failed to give its transformers: RuntimeError"):
        manager.load([SimpleNamespace(__name__="mine", transom_transformers=transom_transformers)])


def test_image_without_pillow_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    found = manager.load(entry_points=False)
    assert set(found) == BUILTIN - {"image", "faces"}
    assert found.missing["image"] == "it needs Pillow: pip install 'transom[image]'"
    assert found.missing["faces"] == "it needs Pillow: pip install 'transom[vision]'"
    assert found.why_not("image") == (
        "transformer 'image' is not available: it needs Pillow: pip install 'transom[image]'"
    )


@pytest.mark.parametrize(
    ("module", "gone"),
    [
        ("av", {"ffmpeg": "it needs PyAV: pip install 'transom[audio]'", "split_audio": "it needs PyAV"}),
        ("pyarrow", {"parquet": "it needs PyArrow: pip install 'transom[arrow]'", "sql": "it needs PyArrow"}),
        ("duckdb", {"sql": "it needs DuckDB: pip install 'transom[sql]'"}),
    ],
)
def test_a_transformer_without_its_library_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, module: str, gone: dict[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    found = manager.load(entry_points=False)
    assert set(found) == BUILTIN - set(gone)
    for name, remedy in gone.items():
        assert found.missing[name].startswith(remedy)


def test_no_heavy_library_is_imported_to_know_what_there_is() -> None:
    code = (
        "import sys; from transom.plugins import manager; manager.load(entry_points=False); "
        "print([each for each in ('av', 'cv2', 'duckdb', 'numpy', 'pyarrow', 'torch') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_what_is_unavailable_here_may_come_from_elsewhere() -> None:
    found = manager.load([plugin(Unavailable("good", "no")), plugin(Good(), name="two")], entry_points=False)
    assert "good" in found
    assert "good" not in found.missing


def test_an_unknown_name_is_answered_with_a_near_one() -> None:
    found = manager.load(entry_points=False)
    assert found.why_not("md6") == "there is no transformer 'md6'; did you mean 'md5'?"
    assert found.why_not("zzzzzz") == "there is no transformer 'zzzzzz'"


def installed(folder: Path, module: str, entry_point: str) -> None:
    """Lay out what pip would: a module and the metadata of its distribution."""
    (folder / "planted.py").write_text(module)
    info = folder / "planted_plugin-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-plugin\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text(f"[transom]\nplant = {entry_point}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("planted", None)


PLANTED = """
from transom.plugins import Transformer, hookimpl
class Planted(Transformer):
    name = "planted"
    def transform(self, data, context):
        return data
@hookimpl
def transom_transformers():
    return [Planted()]
"""


def test_an_installed_plugin_is_found_by_its_entry_point(site: Path) -> None:
    installed(site, PLANTED, "planted")
    found = manager.load()
    assert found.origin("planted") == manager.Origin("plant", "planted-plugin", "3.1")
    assert "planted" not in manager.load(entry_points=False)


def test_an_installed_plugin_that_lacks_a_library_is_reported(site: Path) -> None:
    installed(site, "import no_such_library", "planted")
    found = manager.load()
    assert set(found) >= BUILTIN
    assert found.missing["plant"] == (
        "plugin 'plant' (planted-plugin 3.1) can't be imported: No module named 'no_such_library'"
    )


def test_the_extra_that_an_entry_point_names_is_in_the_report(site: Path) -> None:
    installed(site, "import no_such_library", "planted [fast]")
    assert manager.load().missing["plant"].endswith("pip install 'planted-plugin[fast]'")


def test_an_installed_plugin_that_breaks_otherwise_stops_the_start(site: Path) -> None:
    installed(site, "1 / 0", "planted")
    with pytest.raises(LoadError, match=r"plugin 'plant' \(planted-plugin 3.1\) failed while being imported from pla"):
        manager.load()
