"""Redirect or relay with four targets: who is sent where, with what leave, and that all get the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.running import ACCESS, SECRET, RunningServer
from tests.wire import Raw, Wire, at, eventually
from transom.client.boto import get_object, head_object
from transom.cluster.grants import load_secret, sign, verify
from transom.cluster.map import ClusterMap, Target
from transom.cluster.placement import owner

BUCKET = "redirects"
CURL = {"user-agent": "curl/8.0"}
BODY = b"around and around it goes " * 50_000  # 1.3 MB: longer than what is answered with a length at once
KEYS = [f"object-{i}" for i in range(12)]
ODD_KEYS = [
    "a b/ü+1#x?y=z&w",
    "two//slashes",
    "/leading",
    "folder/",
    "an%2Fencoded%20key%",
    "tilde~'()*!@$&=:;,",
    "日本/🎉",
]
DOTTED_KEYS = ["..", "up/../and/./over", "./here"]
aws = Path(sys.executable).with_name("aws")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Four targets behind a gateway, with a folder served beside the store."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    (folder / "sub" / "a file.txt").write_bytes(b"in a folder\n")
    args = ("--targets", "4", "--folder", f"photos={folder}")
    running = RunningServer(tmp_path_factory.mktemp("cluster"), args).start()
    s3 = running.client()
    s3.create_bucket(Bucket=BUCKET)
    for key in KEYS:
        s3.put_object(Bucket=BUCKET, Key=key, Body=BODY + key.encode())
    for key in (*ODD_KEYS, *DOTTED_KEYS):
        s3.put_object(Bucket=BUCKET, Key=key, Body=f"the body of {key}".encode())
    yield running
    assert running.stop() == 0, "".join(running.log)


@pytest.fixture
def wire(cluster: RunningServer) -> Wire:
    return Wire(cluster)


def owner_of(server: RunningServer, key: str, bucket: str = BUCKET) -> Target:
    found = owner(ClusterMap.from_json((server.folder / "cluster.json").read_text()), bucket, key)
    assert found is not None
    return found


def upper(key: str) -> bytes:
    return (BODY + key.encode()).upper()


def location(answer: Raw) -> str:
    assert answer.status == 307, answer
    return answer.headers["location"]


def fetch(url: str, method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(method, url, headers=headers, allow_redirects=False, timeout=30)


def signed(method: str, url: str) -> dict[str, str]:
    request = AWSRequest(method, url)
    S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def curl(url: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "-sS", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{ACCESS}:{SECRET}"]
    command += ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", *options, url]
    return subprocess.run(command, capture_output=True, timeout=60, check=True)


# --- who is redirected, and where to -------------------------------------------------------------


def test_keys_are_redirected_to_their_owners_and_all_targets_own_some(cluster: RunningServer, wire: Wire) -> None:
    seen = set()
    for key in KEYS:
        target = owner_of(cluster, key)
        url = location(wire.get(at(BUCKET, key, etl="upper"), CURL))
        assert urlsplit(url).port == target.port
        answer = fetch(url)
        assert answer.content == upper(key)
        assert answer.headers["x-transom-target"] == target.id
        seen.add(target.id)
    assert len(seen) > 2


def test_every_client_gets_the_same_bytes_and_etag(cluster: RunningServer, tmp_path: Path) -> None:
    key = KEYS[0]
    url = cluster.endpoint + at(BUCKET, key, etl="upper")
    by_requests = requests.get(url, headers=signed("GET", url), timeout=30)
    assert [each.status_code for each in by_requests.history] == [307]
    followed = curl(url, "-L", "-D", str(tmp_path / "headers"))
    statuses = re.findall(r"HTTP/1.1 (\d+)", (tmp_path / "headers").read_text())
    assert [status for status in statuses if status != "100"] == ["307", "200"]
    relayed = get_object(cluster.client(), Bucket=BUCKET, Key=key, etl="upper")
    assert relayed["ResponseMetadata"]["HTTPStatusCode"] == 200
    viewed = tmp_path / "viewed"
    command = [str(aws), "s3", "cp", f"s3://{BUCKET}--etl--upper/{key}", str(viewed), "--endpoint-url"]
    keys = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    subprocess.run([*command, cluster.endpoint], env=keys, check=True, capture_output=True, timeout=60)
    bodies = [by_requests.content, followed.stdout, relayed["Body"].read(), viewed.read_bytes()]
    assert [hashlib.md5(body).hexdigest() for body in bodies] == [hashlib.md5(upper(key)).hexdigest()] * 4
    assert by_requests.headers["etag"] == relayed["ETag"]
    assert relayed["ResponseMetadata"]["HTTPHeaders"]["x-transom-target"] == owner_of(cluster, key).id


def test_head_is_redirected_and_says_what_get_does(cluster: RunningServer, wire: Wire) -> None:
    key = KEYS[1]
    target = at(BUCKET, key, etl="upper")
    url = location(wire.head(target, CURL))
    head = fetch(url, "HEAD")
    assert int(head.headers["content-length"]) == len(upper(key))
    assert head.headers["etag"] == head_object(cluster.client(), Bucket=BUCKET, Key=key, etl="upper")["ETag"]
    assert fetch(url, "GET").status_code == 403  # leave to look is no leave to read
    full = cluster.endpoint + target
    answer = requests.head(full, headers=signed("HEAD", full), allow_redirects=True, timeout=30)
    assert (answer.status_code, len(answer.history)) == (200, 1)


@pytest.mark.parametrize("agent", ["Boto3/1.43.1 md/Botocore#1", "aws-cli/1.46", "rclone/v1.70", "", "xcurl/8"])
def test_clients_not_known_to_follow_are_relayed(wire: Wire, agent: str) -> None:
    answer = wire.get(at(BUCKET, KEYS[2], etl="md5"), {"user-agent": agent} if agent else {})
    assert answer.status == 200
    assert answer.body.decode() == hashlib.md5(BODY + KEYS[2].encode()).hexdigest()


@pytest.mark.parametrize("agent", ["curl/7.1", "Wget/1.2", "python-requests/2.3", "aws-sdk-go-v2/1.3", "Mozilla/5.0"])
def test_clients_known_to_follow_are_redirected(wire: Wire, agent: str) -> None:
    assert location(wire.get(at(BUCKET, KEYS[2], etl="md5"), {"user-agent": agent}))


def test_our_helpers_header_asks_for_the_redirect(wire: Wire) -> None:
    assert location(wire.get(at(BUCKET, KEYS[2], etl="md5"), {"x-transom-follows-redirects": "1"}))


def test_views_and_the_endpoint_prefix_are_relayed_never_redirected(wire: Wire) -> None:
    for target in (f"/{BUCKET}--etl--upper/{KEYS[0]}", f"/-/via/upper/{BUCKET}/{KEYS[0]}"):
        for method in ("GET", "HEAD"):
            answer = wire(method, target, CURL)
            assert answer.status == 200, answer
            assert method == "HEAD" or answer.body == upper(KEYS[0])


def test_plain_objects_are_served_by_the_gateway(wire: Wire) -> None:
    answer = wire.get(at(BUCKET, KEYS[0]), CURL)
    assert (answer.status, answer.body) == (200, BODY + KEYS[0].encode())
    assert "x-transom-target" not in answer.headers


def test_what_the_caller_may_not_have_is_refused_before_any_redirect(wire: Wire) -> None:
    assert wire.get(at(BUCKET, KEYS[0], etl="md5"), CURL, signed=False).status == 403
    assert wire.get(at(BUCKET, "missing", etl="md5"), CURL).code == "NoSuchKey"
    assert wire.get(at(BUCKET, KEYS[0], etl="no-such"), CURL).code == "InvalidArgument"


# --- what the redirect carries -------------------------------------------------------------------


def test_range_and_conditions_are_the_clients_own(wire: Wire) -> None:
    url = location(wire.get(at(BUCKET, KEYS[3], etl="upper"), CURL))
    whole = fetch(url)
    resumed = fetch(url, Range="bytes=1000000-")
    assert (resumed.status_code, resumed.content) == (206, upper(KEYS[3])[1_000_000:])
    assert resumed.headers["content-range"] == f"bytes 1000000-{len(whole.content) - 1}/{len(whole.content)}"
    assert fetch(url, **{"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert fetch(url, **{"If-Match": '"0123"'}).status_code == 412
    assert fetch(url, Range="bytes=99999999-").status_code == 416


def test_curl_resumes_a_download_through_the_redirect(cluster: RunningServer, tmp_path: Path) -> None:
    begun = tmp_path / "download"
    begun.write_bytes(upper(KEYS[4])[:700_001])
    curl(cluster.endpoint + at(BUCKET, KEYS[4], etl="upper"), "-L", "-C", "-", "-o", str(begun))
    assert begun.read_bytes() == upper(KEYS[4])


def test_response_overrides_and_args_travel_in_the_grant(wire: Wire) -> None:
    asked = at(BUCKET, KEYS[0], etl="grow", etl_args="10", **{"response-content-type": "x/y; charset=ü"})
    url = location(wire.get(asked, CURL))
    answer = fetch(url)
    assert len(answer.content) == 10
    assert answer.headers["content-type"] == "x/y; charset=ü"


def test_a_presigned_urls_end_bounds_the_redirects(wire: Wire) -> None:
    target = at(BUCKET, KEYS[5], etl="md5")
    soon = int(time.time()) + 9
    ends = [_ends(location(wire.get(wire.presigned("GET", target, expires_s=s), CURL, signed=False))) for s in (8, 900)]
    assert ends[0] <= soon < ends[1] <= time.time() + 60


def _ends(url: str) -> int:
    return int(dict(parse_qsl(urlsplit(url).query))["t-exp"])


def test_the_redirect_holds_nothing_secret_and_is_not_to_be_stored(wire: Wire) -> None:
    answer = wire.get(wire.presigned("GET", at(BUCKET, KEYS[5], etl="md5")), CURL, signed=False)
    url = location(answer)
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(f"{SECRET}|x-amz-|authorization|credential", url, re.IGNORECASE)


def test_request_ids_correlate_the_logs_of_gateway_and_target(cluster: RunningServer, wire: Wire) -> None:
    target = at(BUCKET, KEYS[6], etl="md5")
    relayed = wire.get(target).headers["x-amz-request-id"]
    redirect = wire.get(target, CURL)
    redirected = redirect.headers["x-amz-request-id"]
    assert fetch(location(redirect)).headers["x-amz-request-id"] == redirected
    for request_id, status in ((relayed, 200), (redirected, 307)):
        lines = eventually(lambda wanted=request_id: _two(cluster, wanted))
        by = {line.get("target", "gateway"): line for line in lines}
        assert by["gateway"]["status"] == status
        assert by[owner_of(cluster, KEYS[6]).id]["status"] == 200


def _two(server: RunningServer, request_id: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in list(server.log) if line.startswith("{") and request_id in line]
    return lines if len(lines) >= 2 else []


# --- what a target refuses -----------------------------------------------------------------------


def _refused(url: str, method: str = "GET") -> str:
    answer = fetch(url, method, Authorization="AWS4-HMAC-SHA256 whatever")
    assert answer.status_code == 403, (url, answer.status_code, answer.content)
    assert BODY[:20].upper() not in answer.content
    assert "<Code>AccessDenied</Code>" in answer.text or method == "HEAD"
    return answer.text


def test_a_redirect_with_any_field_changed_is_refused(wire: Wire) -> None:
    asked = at(BUCKET, KEYS[0], etl="upper", **{"response-content-type": "text/x"})
    parts = urlsplit(location(wire.get(asked, CURL)))
    fields = parse_qsl(parts.query)
    names = {name for name, _ in fields}
    assert names == {"t-plan", "t-exp", "t-principal", "t-request", "response-content-type", "t-sig"}
    for changed, value in fields:
        other = (
            str(int(value) + 1) if changed == "t-exp" else value[:5] + ("A" if value[5:6] != "A" else "B") + value[6:]
        )
        query = urlencode([(name, other if name == changed else text) for name, text in fields])
        _refused(parts._replace(query=query).geturl())
        _refused(parts._replace(query=urlencode([pair for pair in fields if pair[0] != changed])).geturl())
    for added in (("versionId", "x"), ("response-expires", "never"), ("etl", "md5"), ("t-exp", "9999999999")):
        _refused(parts._replace(query=urlencode([*fields, added])).geturl())
    for path in (f"/{BUCKET}/{KEYS[1]}", f"/photos/{KEYS[0]}", f"/{BUCKET}//{KEYS[0]}", f"/{BUCKET}/", "/"):
        _refused(parts._replace(path=path).geturl())
    for method in ("HEAD", "PUT", "DELETE", "POST"):
        _refused(parts.geturl(), method)


def test_an_expired_redirect_is_refused(cluster: RunningServer, wire: Wire) -> None:
    parts = urlsplit(location(wire.get(at(BUCKET, KEYS[0], etl="upper"), CURL)))
    secret = load_secret(cluster.folder / "redirect.secret")
    base = f"http://{parts.netloc}"
    then = time.time() - 100
    genuine = verify("GET", parts.path, parts.query, secret, time.time())
    late = replace(genuine, expires_at=int(then) + 50)
    assert "expired" in _refused(base + sign(late, secret, then))
    good = replace(genuine, expires_at=int(time.time()) + 50)
    assert fetch(base + sign(good, secret)).content == upper(KEYS[0])
    _refused(base + sign(good, bytes(32)))


def test_a_targets_listener_serves_nothing_without_a_grant(cluster: RunningServer) -> None:
    base = f"http://127.0.0.1:{owner_of(cluster, KEYS[0]).port}"
    for path in ("/", f"/{BUCKET}", at(BUCKET, KEYS[0]), at(BUCKET, KEYS[0], etl="upper"), "/-/api/v1/etls"):
        _refused(base + path)
        assert requests.get(base + path, headers=signed("GET", base + path), timeout=30).status_code == 403
    assert fetch(base + "/-/health").status_code == 200


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_through_redirect_and_relay(cluster: RunningServer, key: str) -> None:
    wanted = f"the body of {key}".encode().upper()
    url = f"{cluster.endpoint}/{BUCKET}/{quote(key, safe='/')}?etl=upper"
    answer = requests.get(url, headers=signed("GET", url), timeout=30)
    assert (answer.content, len(answer.history)) == (wanted, 1)
    hop = urlsplit(answer.url)
    assert unquote(hop.path) == f"/{BUCKET}/{key}"
    assert hop.port == owner_of(cluster, key).port
    assert curl(url, "-L", "--path-as-is").stdout == wanted
    assert get_object(cluster.client(), Bucket=BUCKET, Key=key, etl="upper")["Body"].read() == wanted
    assert cluster.client().get_object(Bucket=f"{BUCKET}--etl--upper", Key=key)["Body"].read() == wanted


@pytest.mark.parametrize("key", DOTTED_KEYS)
def test_keys_with_dot_segments_are_relayed_since_clients_resolve_them_in_urls(
    cluster: RunningServer, wire: Wire, key: str
) -> None:
    wanted = f"the body of {key}".encode().upper()
    answer = wire.get(f"/{BUCKET}/{quote(key)}?etl=upper", CURL)
    assert (answer.status, answer.body) == (200, wanted)
    assert get_object(cluster.client(), Bucket=BUCKET, Key=key, etl="upper")["Body"].read() == wanted


def test_folder_buckets_go_through_targets_too(cluster: RunningServer, wire: Wire) -> None:
    key = "sub/a file.txt"
    url = location(wire.get(at("photos", key, etl="upper"), CURL))
    assert urlsplit(url).port == owner_of(cluster, key, "photos").port
    assert fetch(url).content == b"IN A FOLDER\n"
    assert get_object(cluster.client(), Bucket="photos", Key=key, etl="upper")["Body"].read() == b"IN A FOLDER\n"
    assert wire.get(at("photos", "../sub/a file.txt", etl="upper"), CURL).status == 404


def test_metadata_of_any_bytes_survives_the_relay(cluster: RunningServer, wire: Wire) -> None:
    wire.put(at(BUCKET, "meta"), b"body", {"x-amz-meta-name": "käse"})
    plain = wire.get(at(BUCKET, "meta")).headers["x-amz-meta-name"]
    assert wire.get(at(BUCKET, "meta", etl="upper")).headers["x-amz-meta-name"] == plain


# --- configuration -------------------------------------------------------------------------------

StartServer = Callable[..., RunningServer]


def _configured(start_server: StartServer, tmp_path: Path, redirect: str, *args: str) -> Wire:
    config = tmp_path / "transom.toml"
    config.write_text(f'[cluster]\ntargets = 1\nredirect = "{redirect}"\nfollowers = ["mine/"]\n')
    running = start_server("--config", str(config), *args)
    wire = Wire(running)
    wire.put("/made")
    wire.put("/made/key", b"body")
    return wire


def test_redirect_always_sends_everybody_that_names_an_etl(start_server: StartServer, tmp_path: Path) -> None:
    wire = _configured(start_server, tmp_path, "always", "--advertise", "localhost")
    url = location(wire.get("/made/key?etl=upper", {"user-agent": "Boto3/1"}))
    assert urlsplit(url).hostname == "localhost"
    assert fetch(url).content == b"BODY"
    assert wire.get("/made--etl--upper/key", CURL).body == b"BODY"


def test_redirect_never_relays_everybody(start_server: StartServer, tmp_path: Path) -> None:
    wire = _configured(start_server, tmp_path, "never")
    for headers in (CURL, {"user-agent": "mine/1"}, {"x-transom-follows-redirects": "1"}):
        assert wire.get("/made/key?etl=upper", headers).body == b"BODY"


def test_the_list_of_followers_is_configurable(start_server: StartServer, tmp_path: Path) -> None:
    wire = _configured(start_server, tmp_path, "auto")
    assert wire.get("/made/key?etl=upper", CURL).status == 200
    assert location(wire.get("/made/key?etl=upper", {"user-agent": "mine/1"}))


def test_without_advertise_the_redirect_names_the_host_the_client_asked_for(cluster: RunningServer) -> None:
    url = f"http://localhost:{cluster.port}" + at(BUCKET, KEYS[0], etl="md5")
    answer = fetch(url, **signed("GET", url), **{"User-Agent": "curl/8"})
    assert urlsplit(answer.headers["location"]).hostname == "localhost"
