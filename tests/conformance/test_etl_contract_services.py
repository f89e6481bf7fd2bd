"""The ETL contract where a container engine starts what runs, or somebody else; and pipelines over all runtimes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conformance.etl_contract import BEGUN, WORDS, EtlContract, is_no_result, outcome, shown, soaking
from tests.conformance.etl_site import BUCKET, SERVICE, SHELL, SOURCE, Combo, Site, running_site, serving
from tests.containers import images
from tests.containers.engines import RunningEngine

MIB = 1024 * 1024
PYTHON = ("/usr/bin/python3", "-c", SOURCE)
SDK = {"image": images.WORKER, "command": [*PYTHON, "sdk"]}
TCP = {"image": images.WORKER, "command": [*PYTHON, "http"]}
COMBOS = [
    Combo("container-hpush", SDK, "hpush", thorough=True),
    Combo("container-hpull", SDK, "hpull"),
    Combo("container-hrev", SDK, "hrev"),
    Combo("container-ws", SDK, "ws"),
    Combo("container-direct", SDK, "hpush", {"direct_file": True}),
    Combo("container-tcp-hpush", TCP, "hpush"),
    Combo("container-tcp-hpull", TCP, "hpull", {"cache": False}),
    Combo("code-contained", {"code": SOURCE}, "hpush"),
    Combo("command-contained", {"command": [*PYTHON, "http"]}, "hpull", {"cache": False}),
    Combo("url-hpush", {"url": SERVICE}, "hpush", thorough=True),
    Combo("url-ws", {"url": SERVICE}, "ws", {"cache": False}),
]
PROGRAMS = [  # stages beside those
    Combo("plugin", {"plugin": "probe"}),
    Combo("process", {"process": "probe"}, rest={"concurrency": 2}),
    Combo("io-shell", {"command": ["/bin/sh", "-c", SHELL]}, "io"),
    Combo("io-persistent", {"command": [*PYTHON, "io"]}, "io", {"io": "persistent"}),
    Combo("code-ws", {"code": SOURCE}, "ws"),
    Combo("code-hpull", {"code": SOURCE}, "hpull"),
    Combo("code-direct", {"code": SOURCE}, "hpush", {"direct_file": True}),
]
Step = tuple[dict[str, Any], Callable[[bytes], bytes]]
UPPER: Step = ({"do": "upper"}, bytes.upper)
REVERSE: Step = ({"do": "reverse"}, lambda data: data[::-1])
APPEND: Step = ({"do": "append", "text": "!ü"}, lambda data: data + "!ü".encode())
MD5: Step = ({"do": "md5"}, lambda data: hashlib.md5(data).hexdigest().encode())
ECHO: Step = ({"do": "echo"}, bytes)
PIPELINES = {"upper>>reverse>>append": (UPPER, REVERSE, APPEND), "md5>>echo>>md5": (MD5, ECHO, MD5)}
MIXES = [
    ("io-shell", "code-ws", "container-hpush"),
    ("code-hpull", "process", "url-hpush"),
    ("container-tcp-hpush", "io-persistent", "container-hrev"),
    ("container-hpull", "url-ws", "plugin"),
    ("code-direct", "container-ws", "io-shell"),
    ("url-ws", "container-tcp-hpull", "code-hpull"),
]


class TestServices(EtlContract):
    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, tmp_path_factory: pytest.TempPathFactory, container_engine: RunningEngine) -> Iterator[Site]:
        folder, engine = tmp_path_factory.mktemp("services"), container_engine.url
        with ExitStack() as stack:
            elsewhere = [combo.name for combo in COMBOS if "url" in combo.runtime]
            services = {name: stack.enter_context(serving()) for name in elsewhere}
            options = ("--processes", "2")
            yield stack.enter_context(
                running_site(
                    folder, COMBOS, *options, engine=engine, isolation="container", services=services, beside=PROGRAMS
                )
            )

    @pytest.fixture(params=COMBOS, ids=str)
    def combo(self, request: pytest.FixtureRequest) -> Combo:
        return request.param

    @pytest.fixture(params=soaking(COMBOS), ids=str)
    def thorough(self, request: pytest.FixtureRequest) -> Combo:
        return request.param

    # --- pipelines --------------------------------------------------------------------------------

    @pytest.fixture(scope="class")
    @classmethod
    def seven(cls, site: Site) -> dict[str, bytes]:
        """Seven objects, one of them empty and one uploaded in parts."""
        text = b"".join(b"line %d of a text\n" % number for number in range(80_000))
        objects = {
            "seven/empty": b"",
            "seven/byte": b"x",
            "seven/words.txt": b"hello world",
            "seven/ü 100%+&?#/..": "äöü and more".encode(),
            "seven/every": bytes(range(256)) * 400,
            "seven/text": text,
        }
        for key, data in objects.items():
            site.put(data, key)
        parts = (text * 8)[: 11 * MIB]
        put_in_parts(site.server.client(), "seven/parts", [parts[: 6 * MIB], parts[6 * MIB :]])
        return {**objects, "seven/parts": parts}

    @pytest.mark.parametrize("pipeline", PIPELINES)
    @pytest.mark.parametrize("mix", MIXES, ids=">>".join)
    def test_a_pipeline_makes_what_its_functions_make_by_hand(
        self, site: Site, seven: dict[str, bytes], mix: tuple[str, ...], pipeline: str
    ) -> None:
        steps = PIPELINES[pipeline]
        for key, data in seven.items():
            wanted = data
            for _, work in steps:
                wanted = work(wanted)
            answer = site.get(">>".join(mix), key, [does for does, _ in steps])
            assert outcome(answer) == (200, shown(wanted)), key

    @pytest.mark.parametrize("does", ["raise", "late", "skip"])
    @pytest.mark.parametrize("mix", MIXES, ids=">>".join)
    def test_a_stage_that_fails_breaks_the_whole_and_is_named(
        self, site: Site, objects: dict[str, bytes], mix: tuple[str, ...], does: str
    ) -> None:
        for place, etl in enumerate(mix):
            args = [{"do": "echo"}, {"do": "upper"}, {"do": "echo"}]
            args[place] = {"do": does, "then": "raise", "size": BEGUN, "message": WORDS}
            answer = site.get(">>".join(mix), "more", args)
            assert is_no_result(answer), (place, outcome(answer))
            if answer.status != 200:
                broke_off = does == "late" and answer.status == 502
                assert broke_off or answer.status == (404 if does == "skip" else 500)
                assert f"'{etl}'" in outcome(answer)[1], (place, outcome(answer))

    def test_what_one_stage_makes_slowly_the_next_takes_slowly(self, site: Site, objects: dict[str, bytes]) -> None:
        for mix in MIXES:
            answer = site.get(">>".join(mix), "crowd/1", [{"do": "trickle"}, {"do": "upper"}, {"do": "echo"}])
            assert outcome(answer) == (200, "NUMBER 1"), mix


def put_in_parts(s3: Any, key: str, parts: list[bytes]) -> None:
    upload = {"Bucket": BUCKET, "Key": key}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    made = []
    for number, data in enumerate(parts, 1):
        answer = s3.upload_part(**upload, PartNumber=number, Body=data)
        made.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": made})
