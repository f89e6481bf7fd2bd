"""Names of what jobs write: pure, whatever keys look like."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.plugins.args import parse_args
from transom.plugins.builtin.rename import Rename
from transom.plugins.contract import Context, Reject, Skip, Transformer
from transom.target.errors import EtlFailed, EtlInputRejected, EtlSkipped, JobRefused
from transom.target.etl.pipeline import Bound
from transom.target.etl.plan import Stage
from transom.target.jobs.naming import MAX_KEY_BYTES, Naming, extension_of, with_extension
from transom.target.jobs.order import Order

letters = st.characters(exclude_categories=("Cs",))
# short, and of what names are cut at: dots, slashes, newlines
keys = st.text(st.one_of(st.sampled_from("a./\nß"), letters), min_size=1, max_size=12)
folders = st.one_of(st.just(""), keys.map(lambda text: text.strip("/") + "/").filter(lambda text: text != "/"))
extensions = st.text("abz", min_size=1, max_size=3)


def order(source: str, destination: str, **said: Any) -> Order:
    return Order.model_validate({"source": source, "destination": destination, "etl": "x", **said})


class Typed(Transformer):
    """Its output's extension is as its argument says, or goes by the object's content type."""

    name = "typed"

    def __init__(self, extension: str | None = None) -> None:
        self._extension = extension

    def output_extension(self, context: Context) -> str | None:
        return self._extension or {"image/png": "png"}.get(context.content_type)


class Raises(Transformer):
    name = "raises"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def output_key(self, context: Context) -> str | None:
        raise self._error


def bound(transformer: Transformer, key: str, **context: Any) -> Bound:
    stage = Stage(transformer.name, transformer.name, "1", 0, "{}", "[null, {}]", 0)
    return Bound(stage, transformer, Context(bucket="s", key=key, etl=transformer.name, **context))


def renaming(key: str, **args: str) -> Bound:
    return bound(Rename(), key, args=parse_args(Rename(), args))


@given(folders, keys)
def test_a_name_is_the_key_without_the_sources_prefix(folder: str, rest: str) -> None:
    naming = Naming.of(order(f"s3://s/{folder}", "s3://d"))
    assert naming.relative(folder + rest) == rest
    assert naming.destination(folder + rest, ()) == rest
    assert naming.relative(folder) == ""


@given(folders, folders, st.text("ab/-", max_size=4), keys)
def test_without_extensions_names_stay_apart_and_can_be_told(source: str, folder: str, prepend: str, name: str) -> None:
    naming = Naming.of(order(f"s3://s/{source}", f"s3://d/{folder}", prepend=prepend))
    assert naming.destination(source + name, ()) == folder + prepend + name


@given(keys, keys)
def test_a_destination_that_is_no_prefix_gets_a_slash_for_a_prefix_and_is_the_key_for_one_key(
    path: str, key: str
) -> None:
    path, key = path.rstrip("/") or "p", key.rstrip("/") or "k"
    assert Naming.of(order("s3://s", f"s3://d/{path}")).destination(key, ()) == f"{path}/{key}"
    assert Naming.of(order(f"s3://s/{key}", f"s3://d/{path}")).destination(key, ()) == path


@given(folders, keys)
def test_one_key_has_its_last_part_for_a_name(folder: str, key: str) -> None:
    key = key.rstrip("/") or "k"
    made = Naming.of(order(f"s3://s/{key}", f"s3://d/{folder}")).destination(key, ())
    assert made == folder + key.split("/")[-1]


@given(keys, extensions)
def test_an_extension_is_put_on_the_last_part_only(name: str, extension: str) -> None:
    made = with_extension(name, extension)
    folder, last = name.rpartition("/")[0], name.rpartition("/")[2]
    if not last:
        assert made == name
        return
    assert made.rpartition("/")[0] == folder
    assert extension_of(made) == extension
    assert with_extension(made, extension) == made  # once is enough
    assert made.startswith(name.removesuffix(f".{extension_of(name)}").removesuffix("."))


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("a.jpg", "a.webp"),
        ("a", "a.webp"),
        ("a.b/c", "a.b/c.webp"),
        (".bashrc", ".bashrc.webp"),
        ("a.tar.gz", "a.tar.webp"),
        ("a.", "a.webp"),
        ("folder/", "folder/"),
        ("a//b.jpg", "a//b.webp"),
        ("/a.jpg", "/a.webp"),
        ("a\nb.jpg", "a\nb.webp"),
        ("a/..", "a/..webp"),
    ],
)
def test_extensions_by_hand(name: str, made: str) -> None:
    assert with_extension(name, "webp") == made


@given(keys, extensions, extensions)
def test_the_orders_extension_counts_more_than_the_transformers(name: str, asked: str, own: str) -> None:
    name = name.rstrip("/") or "k"
    key = with_extension(name, "jpg")
    stages = [bound(Typed(own), key)]
    assert Naming.of(order("s3://s", "s3://d")).destination(key, stages) == with_extension(name, own)
    mapped = Naming.of(order("s3://s", "s3://d", ext={"jpg": asked}))
    assert mapped.destination(key, stages) == with_extension(name, asked)
    assert mapped.destination(with_extension(name, "gif"), stages) == with_extension(name, own)


@given(keys, extensions)
def test_the_last_stage_that_has_an_extension_counts(name: str, own: str) -> None:
    name = name.rstrip("/") or "k"
    stages = [bound(Typed("first"), name), bound(Typed(own), name), bound(Typed(), name)]
    assert Naming.of(order("s3://s", "s3://d")).destination(name, stages) == with_extension(name, own)


def test_an_extension_may_depend_on_the_object() -> None:
    naming = Naming.of(order("s3://s", "s3://d"))
    assert naming.destination("a.x", [bound(Typed(), "a.x", content_type="image/png")]) == "a.png"
    assert naming.destination("a.x", [bound(Typed(), "a.x", content_type="text/plain")]) == "a.x"


@given(folders, folders, keys)
def test_a_renamer_is_given_the_name_and_what_it_says_counts_for_most(source: str, folder: str, name: str) -> None:
    naming = Naming.of(order(f"s3://s/{source}", f"s3://d/{folder}", prepend="p-", ext={"a": "b"}))
    stages = [renaming(source + name, prefix="new/")]
    assert naming.destination(source + name, stages) == f"{folder}p-new/{name}"


def test_stages_are_asked_with_the_name_so_far() -> None:
    key = "in/cat.jpg"
    stages = [bound(Typed("webp"), key), renaming(key, pattern="cat[.](.*)", replacement=r"\1/dog.\1")]
    assert Naming.of(order("s3://s/in/", "s3://d/")).destination(key, stages) == "webp/dog.webp"
    assert Naming.of(order("s3://s/in/", "s3://d/")).destination(key, stages[::-1]) == "jpg/dog.webp"


@pytest.mark.parametrize(
    ("raised", "error"),
    [(Skip("no face"), EtlSkipped), (Reject("bad"), EtlInputRejected), (KeyError("x"), EtlFailed)],
)
def test_what_a_transformer_raises_is_its_etls_error(raised: Exception, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"ETL 'raises'.*(no face|bad|x)"):
        Naming.of(order("s3://s", "s3://d")).destination("k", [bound(Raises(raised), "k")])


@given(st.integers(3, MAX_KEY_BYTES - 2), st.sampled_from("aß日"))
def test_keys_too_long_for_s3_are_refused_naming_the_object(length: int, letter: str) -> None:
    folder = "f" * (MAX_KEY_BYTES - length - 1)
    naming = Naming.of(order("s3://s", f"s3://d/{folder}"))
    fits, too_long = letter * (length // len(letter.encode())), letter * (length // len(letter.encode()) + 1)
    assert naming.destination(fits, ()) == f"{folder}/{fits}"
    with pytest.raises(JobRefused, match=f"'{too_long}' would become a key of"):
        naming.destination(too_long, ())


def test_a_job_that_inspects_has_no_names_but_relative_ones() -> None:
    naming = Naming.of(Order.model_validate({"kind": "inspect", "source": "s3://s/a/"}))
    assert naming.relative("a/b") == "b"


def test_a_sorts_destination_is_always_a_prefix() -> None:
    sort = {"kind": "sort", "source": "s3://s/one.tar", "destination": "s3://d/out", "sorting": {"shard_count": 2}}
    assert Naming.of(Order.model_validate(sort)).folder == "out/"
