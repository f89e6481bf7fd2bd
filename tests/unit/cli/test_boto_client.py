from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from stand_in import ACCESS_KEY, SECRET_KEY, StandIn

from transom.client.boto import add_etl, etl_query, get_object, head_object

OBJECT = {"Bucket": "photos", "Key": "dir/cat one.txt"}
LOWER, UPPER = b"meow\n" * 1000, b"MEOW\n" * 1000


@pytest.fixture
def client(server: StandIn) -> Iterator[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="eu-west-1",
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )
    yield client
    client.close()


def test_every_read_of_the_client_asks_for_the_pipeline(client: Any, server: StandIn) -> None:
    undo = add_etl(client, ["upper", "upper"], [None, None])
    assert client.get_object(**OBJECT)["Body"].read() == UPPER
    assert client.head_object(**OBJECT)["ContentLength"] == len(UPPER)
    assert server.queries == [{"etl": "upper>>upper", "etl_args": "[null, null]"}] * 2
    undo()
    assert client.get_object(**OBJECT)["Body"].read() == LOWER


def test_parameters_of_the_operation_stay_and_are_signed(client: Any, server: StandIn) -> None:
    add_etl(client, "upper")
    client.get_object(**OBJECT, PartNumber=1, ResponseContentType="text/x+y; a=b", VersionId="null")
    assert server.queries == [
        {"partNumber": "1", "response-content-type": "text/x+y; a=b", "versionId": "null", "etl": "upper"}
    ]


def test_other_operations_are_left_alone(client: Any, server: StandIn) -> None:
    add_etl(client, "upper")
    with pytest.raises(ClientError):
        client.list_objects_v2(Bucket="photos")
    assert server.queries == [{"list-type": "2", "encoding-type": "url"}]


def test_a_second_pipeline_takes_the_place_of_the_first(client: Any, server: StandIn) -> None:
    undo_first = add_etl(client, "nonsense")
    undo_second = add_etl(client, "upper")
    undo_first()
    assert client.get_object(**OBJECT)["Body"].read() == UPPER
    assert client.head_object(**OBJECT)["ContentLength"] == len(UPPER)
    assert [query["etl"] for query in server.queries] == ["upper", "upper"]
    undo_second()
    assert client.get_object(**OBJECT)["Body"].read() == LOWER


def test_download_file_carries_it(client: Any, server: StandIn, tmp_path: Path) -> None:
    add_etl(client, "upper")
    client.download_file("photos", "dir/cat one.txt", str(tmp_path / "cat"))
    assert (tmp_path / "cat").read_bytes() == UPPER


def test_a_presigned_url_carries_it(client: Any) -> None:
    add_etl(client, "a>>b", {"x": "ü&="})
    query = parse_qs(urlsplit(client.generate_presigned_url("get_object", Params=OBJECT)).query)
    assert query["etl"] == ["a>>b"]
    assert query["etl_args"] == ['{"x": "\\u00fc&="}']
    assert "X-Amz-Signature" in query


def test_one_read_can_ask_for_itself(client: Any, server: StandIn) -> None:
    assert get_object(client, etl="upper", **OBJECT)["Body"].read() == UPPER
    assert get_object(client, etl="args", etl_args={"a": 1}, **OBJECT)["Body"].read() == b'{"a": 1}'
    assert head_object(client, etl="args", **OBJECT)["ContentLength"] == len("none")
    assert client.get_object(**OBJECT)["Body"].read() == LOWER


def test_one_reads_pipeline_comes_before_the_clients(client: Any, server: StandIn) -> None:
    add_etl(client, "upper")
    assert get_object(client, etl="args", **OBJECT)["Body"].read() == b"none"
    assert client.get_object(**OBJECT)["Body"].read() == UPPER


def test_threads_that_share_a_client_do_not_mix_their_pipelines(client: Any, server: StandIn) -> None:
    def read(number: int) -> bytes:
        body: bytes = get_object(client, etl="args", etl_args=number, **OBJECT)["Body"].read()
        return body

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(40))) == [str(number).encode() for number in range(40)]


def test_a_failed_read_leaves_nothing_behind(client: Any, server: StandIn) -> None:
    with pytest.raises(ClientError, match="no ETL named"):
        get_object(client, etl="nonsense", **OBJECT)
    assert client.get_object(**OBJECT)["Body"].read() == LOWER


def test_a_pipeline_names_something() -> None:
    assert etl_query("a>>b", 1) == "etl=a%3E%3Eb&etl_args=1"
    for empty in ("", []):
        with pytest.raises(ValueError, match="at least one"):
            etl_query(empty)
