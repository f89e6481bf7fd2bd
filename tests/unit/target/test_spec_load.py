"""Specs from their text: what they say once read, and how what is wrong with one is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from transom.target.etl.spec import INIT_TIMEOUT_S, Resources, Spec, from_json, record_of
from transom.target.etl.spec_load import SpecError, load

IMAGE = "name: x\nruntime:\n  image: a/b:1\n"
AISTORE = """
# as AIStore's users have it
name: echo-transformer-etl
runtime:
  image: aistorage/transformer_echo:latest
  command: ["uvicorn", "server:app", "--port", "8000"]
  env:
    - name: FORMAT
      value: "jpg"
    - name: OPTIONS
      value: ${OPTIONS:-"{}"}
communication: hpull://
argument: fqn
init_timeout: 5m    # to initialise
obj_timeout: 45s
resources:
  requests: {cpu: "1", memory: "1Gi"}
  limits:
    cpu: 500m
    memory: "2Gi"
support_direct_put: true
"""


def one(text: str, **options: Any) -> Spec:
    (spec,) = load(text, **options)
    return spec


# --- what is right ----------------------------------------------------------------------------


def test_aistores_runtime_spec_is_one() -> None:
    spec = one(AISTORE)
    assert (spec.name, spec.kind, spec.runtime_name, spec.transport) == (
        "echo-transformer-etl",
        "image",
        "container",
        "hpull",
    )
    assert spec.runtime.command == ("uvicorn", "server:app", "--port", "8000")
    assert spec.runtime.env == {"FORMAT": "jpg", "OPTIONS": '${OPTIONS:-"{}"}'}
    assert (spec.init_timeout_s, spec.obj_timeout_s, spec.direct_file) == (300.0, 45.0, True)
    assert spec.resources == Resources(cpu=0.5, memory=2 * 2**30)
    assert (spec.argument, spec.support_direct_put) == ("", False)  # said in the one way that is kept


@pytest.mark.parametrize(("argument", "direct"), [("fqn", True), ('""', False)])
@pytest.mark.parametrize("way", ["hpush", "hpull", "ws"])
def test_aistores_ways_to_talk_are_ours(way: str, argument: str, direct: bool) -> None:
    text = AISTORE.replace("hpull://", f"{way}://").replace("argument: fqn", f"argument: {argument}")
    spec = one(text)
    assert (spec.transport, spec.direct_file, spec.runtime.image) == (way, direct, "aistorage/transformer_echo:latest")


@pytest.mark.parametrize(
    ("runtime", "kind", "name", "transport"),
    [
        ("plugin: image", "plugin", "plugin", "call"),
        ("process: image", "process", "process", "call"),
        ('code: "def transform(d): return d"', "code", "code", "hpush"),
        ("command: cat", "command", "command", "io"),
        ("image: a", "image", "container", "hpush"),
        ("{image: a, command: [b]}", "image", "container", "hpush"),
        ("url: http://127.0.0.1:8000/base", "url", "url", "hpush"),
    ],
)
def test_each_runtime_has_its_way_to_talk(runtime: str, kind: str, name: str, transport: str) -> None:
    spec = one(f"name: x\nruntime: {runtime if runtime[0] == '{' else '{' + runtime + '}'}\n")
    assert (spec.kind, spec.runtime_name, spec.transport) == (kind, name, transport)
    record = record_of(spec, "alice")
    assert (record.runtime, record.owner) == (name, "alice")
    assert record.plugin == ("image" if transport == "call" else "")


def test_the_canonical_text_is_the_spec_again() -> None:
    text = "\n".join(
        [
            "name: x",
            "runtime: {code: 'x = 1', requirements: [a==1, 'b[c]>2'], class: Thing, env: {A: '1', B: ''}}",
            "communication: ws",
            "args: {b: 1, a: [null, 1.5]}",
            "init_timeout: 1m30s",
            "idle_timeout: 1h",
            "resources: {cpu: 2, memory: 64 MiB, pids: 50}",
            "deterministic: false",
            "cache: no",
            "content_type: text/plain; charset=utf-8",
            "extension: tar.gz",
            "max_output: 1Gi",
            "concurrency: 3",
        ]
    )
    spec = one(text)
    assert from_json(spec.to_json()) == spec
    assert one(spec.to_json()) == spec
    assert list(json.loads(spec.to_json())["args"]) == ["b", "a"]
    assert (spec.runtime.entry, spec.communication, spec.cache) == ("Thing", "ws://", False)
    assert (spec.init_timeout_s, spec.resources.memory, spec.max_output) == (90.0, 2**26, 2**30)


def test_what_is_left_to_a_default_is_not_in_the_canonical_text() -> None:
    assert json.loads(one(IMAGE).to_json()) == {
        "name": "x",
        "runtime": {"image": "a/b:1"},
        "communication": "hpush://",
    }
    assert one(IMAGE).init_timeout_s == INIT_TIMEOUT_S
    said = one(IMAGE + "cache: true\nport: 8000\ninit_timeout: 5m\nargument: ''\ncommunication: hpush\n")
    assert said.to_json() == one(IMAGE).to_json()
    empty = one(IMAGE + "cache:\nport:\nresources:\nargument:\ncommunication:\n")
    assert empty.to_json() == one(IMAGE).to_json()


def test_a_spec_of_a_plugin_is_kept_as_one_made_without() -> None:
    record = record_of(one("name: t\nruntime: {plugin: image}\nargs: {width: 1}\nobj_timeout: 2\nconcurrency: 3\n"))
    assert (record.plugin, record.args, record.timeout_s, record.concurrency) == ("image", {"width": 1}, 2.0, 3)
    assert record.spec == {}
    in_pool = record_of(one("name: t\nruntime: {process: image}\n"))
    assert (in_pool.runtime, in_pool.plugin, in_pool.served) == ("process", "image", False)
    assert in_pool.spec == {"name": "t", "runtime": {"process": "image"}}


def test_a_command_in_one_line_is_taken_apart() -> None:
    assert one("name: x\nruntime: {command: \"tr 'a b' c\"}\n").runtime.command == ("tr", "a b", "c")


def test_files_that_are_named_are_put_in() -> None:
    files = {"shout.py": "def transform(d):\n    return d\n", "needs.txt": "# ours\nnumpy==2  # fast\n\nregex\n"}
    spec = one("name: x\nruntime: {code: shout.py, requirements: needs.txt}\n", files=files)
    assert spec.runtime.code == files["shout.py"]
    assert spec.runtime.requirements == ("numpy==2", "regex")


def test_what_is_given_beside_comes_first() -> None:
    overrides = {"name": "y", "communication": "ws://", "init_timeout": "9s", "obj_timeout": None}
    spec = one(IMAGE + "init_timeout: 1s\nobj_timeout: 2s\n", overrides=overrides)
    assert (spec.name, spec.transport, spec.init_timeout_s, spec.obj_timeout_s) == ("y", "ws", 9.0, 2.0)


def test_several_specs_in_one_text() -> None:
    text = f"{IMAGE}---\n{IMAGE.replace('x', 'y')}---\n"
    assert [spec.name for spec in load(text)] == ["x", "y"]
    assert [spec.cache for spec in load(text, overrides={"init_timeout": "1s"})] == [True, True]
    with pytest.raises(SpecError, match="a name was given beside the text, which has 2 specs"):
        load(text, overrides={"name": "z"})


# --- what is wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nruntime:\n  imagee: a\n", "line 3: runtime.imagee: there is no such key; did you mean 'image'?"),
        ("name: x\nimage: a\nruntime: {}\n", "line 2: image: there is no such key; write it under 'runtime'"),
        (
            "name: x\nruntime:\n  image: a\n  network: true\n",
            "line 4: runtime.network: there is no such key; write it beside 'runtime', not under it",
        ),
        (IMAGE + "zzz: 1\n", "line 4: zzz: there is no such key; there are name, runtime, communication,"),
        (
            IMAGE + "resources:\n  limits:\n    gpus: 1\n",
            "line 6: resources.limits.gpus: there is no such key; there are cpu, memory",
        ),
        ("runtime: {image: a}\n", "line 1: name: it is required"),
        ("name: x\n", "line 1: runtime: it is required"),
        ("name: X\nruntime: {image: a}\n", "line 1: name: write 1 to 32 of a-z"),
        ("name: a--b\nruntime: {image: a}\n", "line 1: name: 'a--b' has '--'"),
        ("name: x\nruntime: 5\n", "line 2: runtime: write a mapping of keys, not 5"),
        (
            "name: x\nruntime:\n  env: {A: b}\n",
            "line 2: runtime: give exactly one of plugin, process, code, command, image, url; there is none",
        ),
        ("name: x\nruntime: {image: a, url: http://b}\n", "there are image and url"),
        ("name: x\nruntime:\n  command:\n    - a\n    - 80\n", "line 3: runtime.command: write 80 in quotes"),
        ("name: x\nruntime: {command: ['a\0']}\n", "line 2: the character"),
        ('{"name": "x", "runtime": {"command": ["a\\u0000"]}}', "a program can't be given a NUL character"),
        ("name: x\nruntime: {command: []}\n", "runtime.command: "),
        ('name: x\nruntime: {command: "a \'b"}\n', "runtime.command: No closing quotation"),
        (
            "name: x\nruntime:\n  image: a\n  env:\n    A: 1\n",
            "line 4: runtime.env: write the value of A as text, in quotes",
        ),
        ("name: x\nruntime: {image: a, env: {A-B: c}}\n", "write a variable's name of letters"),
        ("name: x\nruntime: {image: a, env: [{name: A}]}\n", "runtime.env: an element is {name: NAME, value: TEXT}"),
        (
            "name: x\nruntime: {image: a, env: [{name: A, value: b}, {name: A, value: c}]}\n",
            "runtime.env: a variable is given twice",
        ),
        ("name: x\nruntime: {image: 'a b'}\n", "runtime.image: write an image's reference"),
        ("name: x\nruntime: {code: 'x', class: 1st}\n", "runtime.class: write the name of a class or function"),
        ("name: x\nruntime:\n  code: shout.py\n", "line 3: runtime.code: 'shout.py' is a file's name"),
        ("name: x\nruntime: {code: x, requirements: needs.txt}\n", "'needs.txt' is a file's name"),
        ("name: x\nruntime: {code: x, requirements: ['-r y']}\n", "'-r y' is no requirement; options of pip"),
        (
            "name: x\nruntime: {code: x, requirements: ['six --hash=sha256:0']}\n",
            "'six --hash=sha256:0' is no requirement",
        ),
        ('{"name": "x", "runtime": {"code": "y", "requirements": ["a\\n-r b"]}}', "is no requirement"),
        ("name: x\nruntime: {image: a, requirements: [b]}\n", "runtime.requirements: goes with code only"),
        ("name: x\nruntime: {plugin: a, env: {A: b}}\n", "runtime.env: goes with code or command or image only"),
        ("name: x\nruntime:\n  image: a\n  class: A\n", "line 4: runtime.entry: goes with code only"),
        ("name: x\nruntime: {url: ftp://a}\n", "runtime.url: url 'ftp://a': a service's URL begins with http"),
        ("name: x\nruntime: {url: http://u:p@a}\n", "a user and a password have no place in it"),
        ("name: x\nruntime: {url: 'http://a/b c'}\n", "has a character that must be percent-encoded"),
        (IMAGE + "communication: grpc://\n", "line 4: communication: it should be '', 'hpush://'"),
        (IMAGE + "communication: io://\n", "line 4: communication: io:// is for a command; image speaks hpush://"),
        (IMAGE + "io: persistent\n", "line 4: io: goes with `communication: io://` only"),
        (IMAGE + "redirect: worker\n", "line 4: redirect: a worker that clients are sent to needs `network: true`"),
        (
            IMAGE + "redirect: worker\nnetwork: true\n",
            "line 4: redirect: goes with a worker of ours and `communication: hpull://` only",
        ),
        ("name: x\nruntime: {url: http://a}\nnetwork: true\n", "line 3: network: is not ours to set"),
        ("name: x\nruntime: {url: http://a}\nresources: {cpu: 1}\n", "line 3: resources: is not ours to set"),
        ("name: x\nruntime: {url: http://a}\nport: 80\n", "line 3: port: goes with a command or an image only; write"),
        ("name: x\nruntime: {command: a}\nidle_timeout: 5m\n", "line 3: idle_timeout: is for a worker that goes on"),
        (
            "name: x\nruntime: {plugin: a}\ncommunication: hpush\n",
            "line 3: communication: doesn't go with an installed transformer (plugin)",
        ),
        ("name: x\nruntime: {process: a}\nargument: fqn\n", "line 3: argument: doesn't go with an installed"),
        ("name: x\nruntime: {process: a}\nargs: 5\n", "line 3: args: write the transformer's arguments by name"),
        ("name: x\nruntime: {code: x=1, class: a.b}\n", "line 2: runtime.class: write the name of a class or function"),
        ("name: x\nruntime: {code: x=1, entry: a.b}\n", "line 2: runtime.entry: write the name of a class or function"),
        (IMAGE + "init_timeout: soon\n", 'line 4: init_timeout: write a duration such as "45s"'),
        (IMAGE + "obj_timeout: 0\n", "line 4: obj_timeout: it should be greater than 0, not 0"),
        (IMAGE + "obj_timeout: 25h\n", "line 4: obj_timeout: it should be less than or equal to 86400"),
        (IMAGE + "resources: {memory: lots}\n", "line 4: resources.memory: write a size such as"),
        (IMAGE + "resources: {cpu: all}\n", "line 4: resources.cpu: write CPUs such as"),
        (IMAGE + "concurrency: many\n", 'line 4: concurrency: write a whole number, not "many"'),
        (IMAGE + "cache: maybe\n", 'line 4: cache: write true or false, not "maybe"'),
        (IMAGE + "content_type: text\n", "line 4: content_type: write a type such as image/webp"),
        (IMAGE + "extension: .jpg\n", "line 4: extension: write an extension such as webp, without a dot"),
        ("- a\n- b\n", "line 1: a spec is a mapping with name and runtime"),
        ("just a word\n", "a spec is a mapping"),
        ("", "a text holds 1 to 100 specs, this one 0"),
        ("---\na: 1\n" * 101, "a text holds 1 to 100 specs, this one 101"),
        ("a: 1\na: 2\n", "line 2: the key 'a' is given twice"),
        ('{"name": "x", "runtime": {"image": "a"}, "args": "\\ud800"}', "half a character"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {}\n",
            "line 2: kind: this is a Kubernetes object; write a spec: name, runtime.image, communication",
        ),
        (f"{IMAGE}---\n{IMAGE}", "two specs are named 'x'"),
    ],
)
def test_what_is_wrong_is_told_with_line_key_and_remedy(text: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        load(text)
    assert said in str(refused.value)


def test_all_that_is_wrong_is_told_at_once_from_top_to_bottom() -> None:
    text = f"name: x\nruntime:\n  imagee: a\ncache: maybe\n---\n{IMAGE}port: 0\n---\n- z\n"
    with pytest.raises(SpecError) as refused:
        load(text)
    assert str(refused.value).split("; ") == [
        "document 1 (x), line 3: runtime.imagee: there is no such key",
        "did you mean 'image'?",
        'document 1 (x), line 4: cache: write true or false, not "maybe"',
        "document 2 (x), line 9: port: it should be greater than or equal to 1, not 0",
        "document 3, line 11: a spec is a mapping with name and runtime",
    ]


def test_what_was_given_beside_has_no_line() -> None:
    with pytest.raises(SpecError) as refused:
        load(IMAGE, overrides={"name": "Y", "init_timeout": "soon"})
    assert str(refused.value).startswith("name: write 1 to 32 of a-z")
    assert 'init_timeout: write a duration such as "45s"' in str(refused.value)


def test_a_value_is_shown_in_part_only() -> None:
    with pytest.raises(SpecError) as refused:
        load(IMAGE + f"cache: {'x' * 5000}\n")
    assert len(str(refused.value)) < 200
