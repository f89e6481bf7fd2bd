"""Asking for a transform: every spelling means the same, is signed, and says clearly what it can't do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Raw, Wire, at
from transom.client.admin import AdminClient
from transom.client.boto import add_etl, get_object, head_object

DATA = b"Some Text"


@pytest.fixture
def source(wire: Wire, bucket: str) -> str:
    """The path of an object that holds DATA."""
    wire.put(at(bucket, "dir/k"), DATA)
    return at(bucket, "dir/k")


def query(**values: object) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in values.items())


def test_every_spelling_is_one_identity(server: RunningServer, wire: Wire, bucket: str, source: str) -> None:
    pipeline, args = "append>>upper>>append", '[{"text": "a"}, null, "b"]'
    wanted = b"SOME TEXTAb"
    spellings = [
        query(etl=pipeline, etl_args=args),
        query(etl="append>>upper>>append", etl_args='["a",null,{"text":"b"}]'),
        query(etl="append >> upper >> append", etl_args=args),
        query(etl_name="append", etl_pipeline="upper,append", etl_args=args),
        query(etl_name="append>>upper", etl_pipeline="append", etl_args=args),
        query(etl_pipeline="append,upper,append", etl_args=args),
    ]
    answers = [wire.get(f"{source}?{spelling}") for spelling in spellings]
    assert [(answer.status, answer.body) for answer in answers] == [(200, wanted)] * len(answers)
    assert len({answer.etag for answer in answers}) == 1
    s3 = server.client()
    asked: dict[str, Any] = {"Bucket": bucket, "Key": "dir/k", "etl": pipeline, "etl_args": json.loads(args)}
    assert get_object(s3, **asked)["Body"].read() == wanted
    assert head_object(s3, **asked)["ETag"] == answers[0].etag


def test_pipeline_without_arguments_is_one_identity_by_query_view_and_prefix(
    wire: Wire, bucket: str, source: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    view = name("made")
    admin.create_view(view, bucket, "upper>>append>>md5")
    targets = [
        source + "?" + query(etl="upper>>append>>md5"),
        source + "?" + query(etl_name="upper", etl_pipeline="append,md5"),
        f"/{bucket}--etl--upper~append~md5/dir/k",
        f"/{bucket}--etl--upper%3E%3Eappend%3E%3Emd5/dir/k",
        f"/{bucket}--etl--upper/dir/k?" + query(etl="append>>md5"),
        f"/{view}/dir/k",
        f"/-/via/upper~append~md5/{bucket}/dir/k",
        f"/-/via/upper%3E%3Eappend%3E%3Emd5/{bucket}/dir/k",
        f"/-/via/upper%253E%253Eappend%253E%253Emd5/{bucket}/dir/k",  # botocore encodes an encoded endpoint again
        f"/-/via/upper%7Eappend%7Emd5/{bucket}/dir/k",
        f"/-/via/upper~append/{bucket}/dir/k?" + query(etl="md5"),
    ]
    answers = [wire.get(target) for target in targets]
    assert [answer.status for answer in answers] == [200] * len(targets), answers
    assert len({answer.body for answer in answers}) == 1
    assert len({answer.etag for answer in answers}) == 1
    admin.remove_view(view)


def test_raw_signs_are_taken_where_the_http_server_takes_them(
    server: RunningServer, wire: Wire, bucket: str, source: str
) -> None:
    """ ">" isn't allowed in a URL. Hypercorn passes it on; Granian's parser refuses it before any of ours sees it."""
    for target in (f"/-/via/upper>>append/{bucket}/dir/k", f"{source}?etl=upper>>append"):
        answer = wire.get(target)
        if server.args:
            assert (answer.status, answer.body) == (200, b"SOME TEXT!")
        else:
            assert (answer.status, answer.body) == (400, b"")


@pytest.mark.parametrize("via", ["upper~append", "upper>>append", "upper%3E%3Eappend"])
def test_endpoint_prefix_works_in_boto3_and_is_exactly_the_implicit_view(
    server: RunningServer, wire: Wire, bucket: str, source: str, via: str
) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=f"{server.endpoint}/-/via/{via}",
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    assert s3.get_object(Bucket=bucket, Key="dir/k")["Body"].read() == b"SOME TEXT!"
    head = s3.head_object(Bucket=bucket, Key="dir/k")
    assert head["ContentLength"] == 10
    (entry,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert (entry["Key"], entry["ETag"], entry["Size"]) == ("dir/k", head["ETag"], 10)
    (entry,) = s3.list_objects(Bucket=bucket, Delimiter="/")["CommonPrefixes"]
    assert entry["Prefix"] == "dir/"
    s3.head_bucket(Bucket=bucket)
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="new", Body=b"x")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 405
    with pytest.raises(ClientError) as refused:
        s3.get_object(Bucket=bucket, Key="missing")
    assert refused.value.response["Error"]["Code"] == "NoSuchKey"


def test_endpoint_prefix_undoes_no_encoding_of_the_key(server: RunningServer, wire: Wire, bucket: str) -> None:
    s3 = server.client()
    for key in ("a%20b", "a b", "a~b", "%257E"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        answer = wire.get(f"/-/via/append~reverse/{bucket}/{quote(key)}")
        assert answer.body == (key + "!").encode()[::-1]


def test_options_and_arguments_reach_their_stage(wire: Wire, source: str) -> None:
    def read(**values: object) -> bytes:
        answer = wire.get(f"{source}?{query(**values)}")
        assert answer.status == 200, answer
        return answer.body

    assert read(**{"etl": "append", "append.text": "?"}) == DATA + b"?"
    assert read(**{"etl": "upper>>append", "append.text": "low"}) == b"SOME TEXTlow"
    assert read(etl="append", etl_args='"?"') == DATA + b"?"
    assert read(etl="append", etl_args="bare") == DATA + b"bare"  # as AIStore's clients send it
    assert read(etl="append", etl_args='{"text": ""}') == DATA
    assert read(etl="append>>append", etl_args='["1", "2"]') == DATA + b"12"
    assert read(etl="append>>append>>append", etl_args="[null, null, null]") == DATA + b"!!!"
    told = json.loads(read(etl="upper>>count>>tell", etl_args='[null, {"seconds": 0}, null]'))
    assert told["args"] == {} and told["etl"] == "tell"


REFUSED = [
    (query(etl="nope"), "nope"),
    (query(etl="upper>>nope"), "nope"),
    (query(etl="Upper"), "Upper"),
    (query(etl="upper>>"), "empty stage"),
    (query(etl=""), "empty stage"),
    (query(etl="append", etl_args='{"txet": "a"}'), "txet"),
    (query(etl="append", etl_args='{"text": 7}'), "text"),
    (query(etl="upper", etl_args='"x"'), "argument"),
    (query(etl="grow", etl_args="-1"), "size"),
    (query(**{"etl": "grow", "grow.size": "many"}), "size"),
    (query(**{"etl": "grow", "grow.sice": "1"}), "sice"),
    (query(**{"etl": "upper", "append.text": "?"}), "append.text"),
    (query(**{"append.text": "?"}), "append.text"),
    (query(**{"etl": "append", "etl_args": '"a"', "append.text": "?"}), "not both"),
    (query(etl="upper>>append", etl_args='"a"'), "list of 2"),
    (query(etl="upper>>append", etl_args='["a"]'), "list of 2"),
    (query(etl="upper>>append", etl_args="{"), "list of 2"),
    (query(etl_args='"a"'), "needs etl"),
    (query(etl="upper", etl_name="upper"), "not both"),
    (query(etl="upper") + "&" + query(etl="append"), "more than once"),
    (query(etl=">>".join(["upper"] * 17)), "16 stages"),
    (query(etl="needs"), "without defaults"),
]


@pytest.mark.parametrize(("asked", "reason"), REFUSED)
def test_unknown_etl_and_invalid_arguments_are_400_with_the_reason(
    wire: Wire, source: str, asked: str, reason: str
) -> None:
    refused = wire.get(f"{source}?{asked}")
    assert (refused.status, refused.code) == (400, "InvalidArgument"), refused
    assert reason in refused.message.replace("&gt;", ">"), refused.message
    assert DATA not in refused.body
    assert wire.head(f"{source}?{asked}").status == 400


def test_unknown_etl_in_a_view_or_prefix_is_400_and_404_is_for_missing_keys_and_buckets(
    wire: Wire, bucket: str, source: str
) -> None:
    for target in (f"/{bucket}--etl--nope/dir/k", f"/-/via/nope/{bucket}/dir/k", f"/-/via/upper~nope/{bucket}/dir/k"):
        assert (wire.get(target).status, wire.get(target).code) == (400, "InvalidArgument")
        assert wire.get(target.rpartition("/dir")[0] + "?list-type=2").status == 400
    missing = [
        (at(bucket, "no", etl="upper"), "NoSuchKey"),
        (f"/{bucket}--etl--upper/no", "NoSuchKey"),
        (at("no-such-bucket", "k", etl="upper"), "NoSuchBucket"),
        ("/no-such-bucket--etl--upper/k", "NoSuchBucket"),
        ("/-/via/upper/no-such-bucket/k", "NoSuchBucket"),
        ("/no-such-bucket--etl--upper?list-type=2", "NoSuchBucket"),
    ]
    for target, code in missing:
        refused = wire.get(target)
        assert (refused.status, refused.code) == (404, code), target


def test_etl_made_of_required_arguments_takes_more_on_request(
    wire: Wire, source: str, admin: AdminClient, name: Callable[[str], str]
) -> None:
    etl = name("needs")
    admin.init_etl(etl, "needs", {"text": "ab"})
    assert wire.get(f"{source}?{query(etl=etl)}").body == b"ab"
    assert wire.get(source + "?" + query(etl=etl, etl_args='{"times": 2}')).body == b"abab"
    assert wire.get(f"{source}?" + query(**{"etl": etl, f"{etl}.times": 3})).body == b"ababab"
    assert wire.get(f"{source}?" + query(**{"etl": etl, f"{etl}.text": "c"})).body == b"c"
    refused = wire.get(source + "?" + query(etl=etl, etl_args='{"times": -2}'))
    assert (refused.status, etl in refused.message) == (400, True)
    admin.remove_etl(etl)


def test_a_transform_is_for_reads_of_objects_only(wire: Wire, bucket: str, source: str) -> None:
    for method, target in [
        ("PUT", source + "?etl=upper"),
        ("DELETE", source + "?etl=upper"),
        ("GET", f"/{bucket}?list-type=2&etl=upper"),
        ("GET", source + "?tagging&etl=upper"),
    ]:
        refused = wire(method, target)
        assert (refused.status, refused.code) == (400, "InvalidArgument"), (method, target, refused)
    assert wire.get(source).body == DATA


# --- presigned URLs ---------------------------------------------------------------------------------


def presigned_get(wire: Wire, url: str) -> Raw:
    parts = urlsplit(url)
    return wire.get(f"{parts.path}?{parts.query}", signed=False)


def test_presigned_v4_urls_carry_the_etl_and_cover_it(
    server: RunningServer, wire: Wire, bucket: str, source: str
) -> None:
    s3 = server.client(signature_version="s3v4")
    undo = add_etl(s3, "upper>>append", [None, "?"])
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "dir/k"})
    undo()
    assert presigned_get(wire, url).body == b"SOME TEXT?"
    assert "etl=" in url
    for tampered in (url.replace("upper", "lower"), url.replace("%3F", "%21"), url + "&append.text=x"):
        assert tampered != url
        refused = presigned_get(wire, tampered)
        assert (refused.status, refused.code) == (403, "SignatureDoesNotMatch")
    for target in (at(f"{bucket}--etl--upper", "dir/k"), f"/-/via/upper/{bucket}/dir/k"):
        assert wire.get(wire.presigned("GET", target), signed=False).body == DATA.upper()
    refused = wire.get(wire.presigned("GET", source + "?etl=upper").replace("etl=upper", "etl=md5"), signed=False)
    assert refused.code == "SignatureDoesNotMatch"


def test_presigned_url_that_has_run_out_is_refused(wire: Wire, source: str) -> None:
    url = wire.presigned("GET", source + "?etl=upper", expires_s=1)
    time.sleep(1.5)
    refused = wire.get(url, signed=False)
    assert (refused.status, refused.code) == (403, "AccessDenied")
    assert "expired" in refused.message


def test_presigned_v2_is_refused_with_anything_it_does_not_sign_and_fine_on_a_view(
    server: RunningServer, wire: Wire, bucket: str, source: str
) -> None:
    def v2(target: str, extra: str = "") -> Raw:
        return wire.get(wire.presigned("GET", target, version=2) + extra, signed=False)

    assert v2(source).body == DATA
    assert v2(at(f"{bucket}--etl--upper", "dir/k")).body == DATA.upper()
    for refused in (
        v2(source, "&etl=upper"),
        v2(source, "&etl_name=upper"),
        v2(source, "&etl_pipeline=upper"),
        v2(source, "&etl_args=1"),
        v2(source, "&append.text=x"),
        v2(at(f"{bucket}--etl--append", "dir/k"), "&append.text=x"),
        v2(f"/-/via/upper/{bucket}/dir/k"),
    ):
        assert (refused.status, refused.code) == (403, "AccessDenied"), refused
        assert "s3v4" in refused.message
    # what boto3 makes by default for a custom endpoint
    url = server.client(signature_version="s3").generate_presigned_url(
        "get_object", {"Bucket": f"{bucket}--etl--upper", "Key": "dir/k"}
    )
    assert "AWSAccessKeyId" in url
    assert presigned_get(wire, url).body == DATA.upper()


def test_the_signature_covers_the_transform(wire: Wire, source: str) -> None:
    """Signed for one ETL, sent for another."""
    request = AWSRequest("GET", wire.server.endpoint + source + "?etl=upper")
    S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "us-east-1").add_auth(request)
    for stolen in (source + "?etl=md5", source, source + "?etl=upper&etl_args=1", source + "?etl=upper&upper.x=1"):
        with wire.send("GET", stolen, dict(request.headers.items())) as exchange:
            assert exchange.whole().code == "SignatureDoesNotMatch"
