"""What a worker reads from its environment, and how signed URLs are made and checked."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_runs import InProcess

from transom.worker.settings import Settings
from transom.worker.signing import is_valid, sign, sign_url

Serving = Callable[..., InProcess]
SECRET = b"a secret of the ETL's own"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def test_defaults() -> None:
    assert Settings.from_env({}) == Settings(port=8000)


def test_everything_is_set_by_its_variable() -> None:
    env = {
        "TRANSOM_ETL": "e",
        "TRANSOM_HOST": "0.0.0.0",
        "TRANSOM_PORT": "1234",
        "AIS_TARGET_URL": "http://t/",
        "TRANSOM_CONCURRENCY": "3",
        "TRANSOM_DIRECT_FILE": "1",
        "TRANSOM_DIRECT_ROOT": "/usr/../usr",
        "TRANSOM_MAX_OUTPUT": "99",
        "TRANSOM_REQUIRE_SIGNATURE": "1",
        "TRANSOM_SECRET": "s",
    }
    settings = Settings.from_env(env)
    assert settings == Settings("e", "", "0.0.0.0", 1234, "http://t/", 3, "/usr", 99, True, b"s")
    assert "b's'" not in repr(settings)


@pytest.mark.parametrize(
    ("env", "port"),
    [({}, None), ({"TRANSOM_PORT": "1"}, None), ({"TRANSOM_PORT": "1", "TRANSOM_REQUIRE_SIGNATURE": "1"}, 1)],
)
def test_beside_a_socket_a_port_is_open_to_the_signed_only(env: dict[str, str], port: int | None) -> None:
    settings = Settings.from_env({"TRANSOM_SOCKET": "/s", "TRANSOM_SECRET": "s", **env})
    assert (settings.socket, settings.port) == ("/s", port)


@pytest.mark.parametrize(
    "env",
    [
        {"TRANSOM_PORT": "x"},
        {"TRANSOM_CONCURRENCY": "0"},
        {"TRANSOM_MAX_OUTPUT": "-1"},
        {"TRANSOM_REQUIRE_SIGNATURE": "1"},
        {"TRANSOM_DIRECT_FILE": "1"},
    ],
)
def test_what_makes_no_sense_is_refused_by_name(env: dict[str, str]) -> None:
    (name,) = env
    with pytest.raises(ValueError, match=name):
        Settings.from_env(env)


def get(worker: InProcess, url: str, method: str = "GET") -> int:
    parts = urlsplit(url)
    client = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        client.request(method, f"{parts.path}?{parts.query}")
        return client.getresponse().status
    finally:
        client.close()


def test_only_what_was_signed_is_answered_on_the_port(serving: Serving) -> None:
    worker = serving(lambda data: data, require_signature=True, secret=SECRET, direct_root="/usr")
    base = "http://{}:{}".format(*worker.address)
    soon = int(time.time()) + 60
    good = sign_url(base, SECRET, "b", "a key/ü?", etl_args="{}", expires=soon)
    # There is nothing to get the object from: a request that is let through is told so.
    assert get(worker, good) == 400
    assert get(worker, good, "PUT") == 403
    assert get(worker, good.replace("%7B%7D", "%7B%20%7D")) == 403
    assert get(worker, good.replace("a%20key", "b%20key")) == 403
    assert get(worker, good.replace(str(soon), str(soon + 1))) == 403
    assert get(worker, good + "&etl_fqn=/usr/bin/env") == 403
    assert get(worker, sign_url(base, SECRET, "b", "k", expires=int(time.time()) - 1)) == 403
    assert get(worker, sign_url(base, b"another", "b", "k", expires=soon)) == 403
    assert get(worker, f"{base}/b/k") == 403
    assert get(worker, f"{base}/ws") == 403
    assert get(worker, f"{base}/health") == 200


def test_the_socket_is_the_targets_and_needs_no_signature(serving: Serving, short_folder: Path) -> None:
    (short_folder / "file").write_bytes(b"stored")
    worker = serving(
        lambda data: data,
        socket=str(short_folder / "s"),
        port=0,
        require_signature=True,
        secret=SECRET,
        direct_root=str(short_folder),
    )
    assert worker.put(b"data") == (200, b"data")
    assert worker.ask("PUT", f"/b/k?etl_fqn={short_folder}/file")[:2] == (200, b"stored")


@settings(deadline=None)
@given(TEXT, TEXT, TEXT, TEXT)
def test_no_two_requests_have_the_same_signature(path: str, args: str, other_path: str, other_args: str) -> None:
    one = sign(SECRET, "GET", path, args, 5)
    assert (one == sign(SECRET, "GET", other_path, other_args, 5)) == ((path, args) == (other_path, other_args))


def test_signature_is_pinned() -> None:
    """Targets make it on their own: it can't change."""
    assert sign(b"key", "GET", "/b/k", "", 1) == "f8dc103aa03312d3b848e5a7a4bb4a21969efd2305715f305c1f0588617d800d"


@pytest.mark.parametrize("expires", ["", "x", "-1", "\uff11", "9" * 11, "1e9"])
def test_an_expiry_that_is_no_number_is_not_valid(expires: str) -> None:
    assert not is_valid(SECRET, "GET", "/b/k", "", expires, "00")
