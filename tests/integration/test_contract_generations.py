"""Non-deterministic ETLs: everything one download reads comes from one run, named by its ETag."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from transom_test_transformers import grow_bytes

from tests.integration.conftest import MAX_RESULTS
from tests.running import RunningServer
from tests.wire import Wire, at

MIB = 1024 * 1024
SIZE = 2 * MIB + 5


def ask(bucket: str, key: str = "k", size: int = SIZE) -> str:
    return at(bucket, key, etl="random", etl_args=size)


def test_all_ranges_of_one_download_come_from_one_run(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"x")

    def part(start: int) -> tuple[str, bytes]:
        answer = wire.get(ask(bucket), {"Range": f"bytes={start}-{start + MIB // 2 - 1}"})
        assert answer.status == 206
        return answer.etag, answer.body

    with ThreadPoolExecutor(6) as pool:
        parts = list(pool.map(part, range(0, SIZE, MIB // 2)))
    assert len({etag for etag, _ in parts}) == 1
    data = b"".join(body for _, body in parts)
    whole = wire.get(ask(bucket))  # the ranges pinned it
    assert (whole.etag, whole.body) == (parts[0][0], data)


def test_head_pins_what_the_get_reads_and_the_listing_says_so(server: RunningServer, wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"x")
    s3, view = server.client(), f"{bucket}--etl--random"
    (listed,) = s3.list_objects_v2(Bucket=view)["Contents"]
    head = s3.head_object(Bucket=view, Key="k")
    assert (listed["ETag"], listed["Size"]) == (head["ETag"], head["ContentLength"])
    first = s3.get_object(Bucket=view, Key="k", IfMatch=head["ETag"])
    again = s3.get_object(Bucket=view, Key="k")
    assert first["ETag"] == again["ETag"] == head["ETag"]
    assert first["Body"].read() == again["Body"].read()
    (listed,) = s3.list_objects_v2(Bucket=view)["Contents"]
    assert listed["ETag"] == head["ETag"]


def test_plain_gets_that_nothing_has_pinned_are_each_a_new_generation(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"x")
    answers = [wire.get(ask(bucket)) for _ in range(3)]
    assert len({answer.body for answer in answers}) == 3
    assert len({answer.etag for answer in answers}) == 3
    for answer in answers:
        assert answer.headers["content-length"] == str(SIZE)  # whole before its first byte: no rerun can take over
    # an older one can be had by its ETag as long as it is kept; ranges under If-Match resume it
    for answer in answers:
        assert wire.get(ask(bucket), {"If-Match": answer.etag}).body == answer.body
        resumed = wire.get(ask(bucket), {"If-Match": answer.etag, "Range": f"bytes={MIB}-"})
        assert (resumed.status, resumed.body, resumed.etag) == (206, answer.body[MIB:], answer.etag)
    assert wire.head(ask(bucket)).etag == answers[-1].etag
    assert wire.get(ask(bucket)).body == answers[-1].body  # pinned by the HEAD
    refused = wire.get(ask(bucket), {"If-Match": '"0123456789abcdef0123456789abcdef-1"'})
    assert (refused.status, refused.code) == (412, "PreconditionFailed")
    assert wire.get(ask(bucket), {"If-None-Match": answers[-1].etag}).status == 304


def test_if_range_of_an_older_generation_gives_a_whole_one(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"x")
    old, new = wire.get(ask(bucket)), wire.get(ask(bucket))
    answer = wire.get(ask(bucket), {"If-Range": old.etag, "Range": "bytes=0-9"})
    assert answer.status == 200 and len(answer.body) == SIZE and answer.etag != old.etag
    kept = wire.get(ask(bucket), {"If-Range": answer.etag, "Range": "bytes=0-9"})
    assert (kept.status, kept.body) == (206, answer.body[:10])
    assert new.etag != old.etag


def test_another_source_begins_anew(wire: Wire, bucket: str) -> None:
    wire.put(at(bucket, "k"), b"x")
    old = wire.head(ask(bucket))
    wire.get(ask(bucket))
    wire.put(at(bucket, "k"), b"y")
    assert wire.head(ask(bucket)).etag != old.etag
    assert wire.get(ask(bucket), {"If-Match": old.etag}).status == 412


def test_pinned_generation_that_was_evicted_is_412_and_the_next_one_is_another(tight: Wire, tight_bucket: str) -> None:
    for key in ("k", *"abcdefgh"):
        tight.put(at(tight_bucket, key), b"x")
    target = ask(tight_bucket, size=MIB)
    first = tight.get(target)
    assert tight.get(target, {"If-Match": first.etag}).body == first.body
    for key in "abcdefgh":  # more than the cache holds
        assert tight.get(at(tight_bucket, key, etl="grow", etl_args=MAX_RESULTS // 8 + 1)).status == 200
    for method, headers in (("GET", {}), ("GET", {"Range": "bytes=5-9"}), ("HEAD", {})):
        assert tight(method, target, {**headers, "If-Match": first.etag}).status == 412
    after = tight.get(target)
    assert after.etag != first.etag and after.body != first.body


def test_generation_that_a_client_was_told_of_is_not_evicted_under_its_ranges(tight: Wire, tight_bucket: str) -> None:
    for key in ("k", *"abcdefgh"):
        tight.put(at(tight_bucket, key), b"x")
    target = ask(tight_bucket, size=MIB)
    head = tight.head(target)
    start = tight.get(target, {"Range": "bytes=0-99"})
    for key in "abcdefgh":  # more than the cache holds
        assert tight.get(at(tight_bucket, key, etl="grow", etl_args=MAX_RESULTS // 8 + 1)).status == 200
    rest = tight.get(target, {"Range": "bytes=100-"})  # an old client sends no If-Match
    assert (start.etag, rest.etag) == (head.etag, head.etag)
    assert tight.get(target, {"If-Match": head.etag}).body == start.body + rest.body


def test_result_of_a_deterministic_etl_survives_eviction_under_the_same_identity(
    tight: Wire, tight_bucket: str
) -> None:
    for key in "abcdefghijkl":
        tight.put(at(tight_bucket, key), b"x")
    targets = [at(tight_bucket, key, etl="grow", etl_args=MIB + number) for number, key in enumerate("abcdefghijkl")]
    first = [tight.get(target) for target in targets]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: tight.get(targets[n % 12], {"If-Match": first[n % 12].etag}), range(36)))
    for number, answer in enumerate(answers):
        assert answer.status == 200 and answer.ended
        assert answer.body == grow_bytes(MIB + number % 12)
    folder = tight.server.folder / "results"
    kept = sum(path.stat().st_size for path in folder.glob("??/*"))
    assert 0 < kept <= MAX_RESULTS
