import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from stand_in import ACCESS_KEY, SECRET_KEY, StandIn

from transom.client.admin import AdminClient, AdminError


@pytest.fixture
def client(server: StandIn) -> Iterator[AdminClient]:
    with AdminClient(server.endpoint + "/", ACCESS_KEY, SECRET_KEY) as client:
        yield client


def test_health_needs_no_key(server: StandIn) -> None:
    with AdminClient(server.endpoint, "nobody", "nothing") as client:
        assert client.health() == {"status": "ok"}


def test_plugins_are_values_and_unknown_fields_are_passed_over(client: AdminClient) -> None:
    found = client.plugins()
    assert [(plugin.name, plugin.version, plugin.releases_gil) for plugin in found.available] == [
        ("image", "2", True),
        ("md5", "", False),
    ]
    assert found.missing == {"speech": "no module named whisper"}


def test_an_etl_from_init_to_removal(client: AdminClient, server: StandIn) -> None:
    made = client.init_etl("thumb", "image", {"width": 10}, concurrency=2, timeout_s=1.5)
    assert (made.name, made.plugin, made.args, made.state, made.revision) == (
        "thumb",
        "image",
        {"width": 10},
        "running",
        1,
    )
    assert (made.cache, made.deterministic, made.concurrency, made.timeout_s) == (True, None, 2, 1.5)
    assert client.stop_etl("thumb").state == "stopped"
    assert client.etl("thumb").state == "stopped"
    assert client.start_etl("thumb").state == "running"
    assert client.etls() == (made,)
    client.remove_etl("thumb")
    assert client.etls() == ()


def test_a_body_does_not_wait_for_its_heads_acknowledgement(client: AdminClient) -> None:
    took_s = []
    for n in range(10):  # on one connection, where a new one's first acknowledgements come at once
        begun = time.perf_counter()
        client.init_etl("thumb", "image", {"width": n})
        took_s.append(time.perf_counter() - begun)
    assert min(took_s[1:]) < 0.035  # Linux puts one off for 40 ms


def test_etls_of_specs(client: AdminClient, server: StandIn) -> None:
    text = "name: a\nruntime: {command: cat}\n---\nname: b\nruntime: {image: x}\n"
    first, second = client.init_spec(text, communication="ws://", init_timeout="5m", obj_timeout=1.5)
    assert server.posted == [
        ({"communication": "ws://", "init_timeout": "5m", "obj_timeout": "1.5", "wait": "true"}, text, {})
    ]
    assert (first.name, first.runtime, first.plugin, first.state) == ("a", "command", "", "running")
    assert second.spec == {"name": "b", "runtime": {"image": "x"}}
    assert [(worker.target, worker.state, worker.pid) for worker in second.workers] == [("local", "running", 77)]
    (third,) = client.init_spec("name: c\nruntime: {code: a.py}\n", files={"a.py": "ü"}, name="d e", wait=False)
    assert (third.name, third.state, third.workers) == ("d e", "initializing", ())
    assert server.posted[-1][0] == {"name": "d e", "wait": "false"}
    assert server.posted[-1][2] == {"a.py": "ü"}
    assert client.restart_etl("a").state == "running"
    server.failing = "No module named 'torch'"
    with pytest.raises(AdminError, match="'a' failed to start: No module named 'torch'"):
        client.init_spec(text)


def test_an_etl_of_code(client: AdminClient, server: StandIn) -> None:
    made = client.init_code("shout", "x = 1\n", requirements=["regex"], entry="Shout", args={"a": 1}, network=True)
    assert made.name == "shout"
    assert json.loads(server.posted[0][1]) == {
        "name": "shout",
        "runtime": {"code": "x = 1\n", "requirements": ["regex"], "entry": "Shout"},
        "args": {"a": 1},
        "network": True,
    }


def test_what_an_etl_has_to_say(client: AdminClient, server: StandIn) -> None:
    client.init_etl("thumb", "image")
    (piece,) = client.etl_logs("thumb")
    assert (piece.target, piece.offset, piece.text) == ("local", 8, "one\ntwo\n")
    assert client.etl_logs("thumb", target="local", offset=4)[0].text == "two\n"
    (error,) = client.etl_errors("thumb", limit=1)
    assert (error.bucket, error.key, error.code, error.message, error.stage) == (
        "b",
        "k",
        "EtlFailed",
        "no\nway",
        "thumb",
    )
    assert client.etl_metrics("thumb")["objects"] == 3
    assert client.etl_health("thumb")["health"] == "degraded"


def test_logs_are_followed_on_every_target(client: AdminClient, server: StandIn) -> None:
    client.init_etl("thumb", "image")
    server.log = {}
    pieces = client.follow_logs("thumb", pause_s=0.01)
    seen: list[tuple[str, str]] = []

    def follow(count: int) -> None:
        seen.extend((piece.target, piece.text) for piece in itertools.islice(pieces, count))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(follow, 2)
        server.log = {"a": "1\n", "b": "2\n"}
        waiting.result(10)
        waiting = pool.submit(follow, 1)
        server.log["b"] += "3\n"
        waiting.result(10)
    assert seen == [("a", "1\n"), ("b", "2\n"), ("b", "3\n")]


def test_a_view_from_creation_to_removal(client: AdminClient, server: StandIn) -> None:
    made = client.create_view("thumbs", "photos", ["thumb", "webp"], args=[{"width": 1}, None], ext={"jpg": "webp"})
    assert (made.bucket, made.etl, made.args, made.ext) == (
        "photos",
        "thumb>>webp",
        [{"width": 1}, None],
        {"jpg": "webp"},
    )
    assert client.create_view("plain", "photos", "a>>b", sizes="materialise").sizes == "materialise"
    assert client.view("thumbs") == made
    assert {view.name for view in client.views()} == {"thumbs", "plain"}
    client.remove_view("plain")
    assert client.views() == (made,)


def test_openapi(client: AdminClient) -> None:
    assert client.openapi()["openapi"] == "3.1.0"


def test_a_name_cannot_leave_its_path_segment(client: AdminClient, server: StandIn) -> None:
    client.init_etl("a/../b?c", "md5")
    assert list(server.etls) == ["a/../b?c"]


def test_a_refusal_carries_status_code_message_and_request_id(client: AdminClient) -> None:
    with pytest.raises(AdminError) as caught:
        client.init_etl("x", "nonsense")
    error = caught.value
    assert (error.status, error.code, error.request_id) == (400, "InvalidArgument", "R1")
    assert str(error) == "InvalidArgument: no transformer named 'nonsense'"


def test_a_wrong_key_is_refused_in_s3s_words(server: StandIn) -> None:
    with AdminClient(server.endpoint, ACCESS_KEY, "wrong") as client, pytest.raises(AdminError) as caught:
        client.etls()
    assert (caught.value.status, caught.value.code) == (403, "SignatureDoesNotMatch")
    assert caught.value.message == "The signature does not match."


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", 502, "502"),
        (b"HTTP/1.1 799 X\r\nContent-Length: 0\r\n\r\n", 799, "799"),
        (b'HTTP/1.1 404 X\r\nContent-Length: 12\r\n\r\n{"code": 1.}', 404, "404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "NotTransom"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", 200, "NotTransom"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}", 0, "Unreachable"),
        (b"", 0, "Unreachable"),
    ],
)
def test_what_no_transom_would_say_is_an_error_too(
    client: AdminClient, server: StandIn, answer: bytes, status: int, code: str
) -> None:
    server.raw_answer = answer
    with pytest.raises(AdminError) as caught:
        client.etls()
    assert (caught.value.status, caught.value.code) == (status, code)


def test_nobody_there(server: StandIn) -> None:
    with AdminClient("http://127.0.0.1:1", ACCESS_KEY, SECRET_KEY) as client, pytest.raises(AdminError) as caught:
        client.health()
    assert (caught.value.status, caught.value.code) == (0, "Unreachable")
    assert "127.0.0.1:1" in caught.value.message


def test_an_endpoint_is_a_url() -> None:
    with pytest.raises(ValueError, match="localhost:9000"):
        AdminClient("localhost:9000", ACCESS_KEY, SECRET_KEY)
