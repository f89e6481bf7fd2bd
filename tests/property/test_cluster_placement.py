from collections import Counter
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from transom.cluster.map import ClusterMap, Target
from transom.cluster.placement import owner, rank

names = st.text(max_size=20)
weights = st.floats(min_value=0.01, max_value=100)
targets = st.lists(
    st.builds(
        Target,
        id=st.text("abcdefgh0123", min_size=1, max_size=6),
        host=st.just("127.0.0.1"),
        port=st.just(9000),
        weight=weights,
        state=st.sampled_from(["up", "up", "up", "down"]),
    ),
    max_size=8,
    unique_by=lambda target: target.id,
).map(tuple)
maps = st.builds(ClusterMap, version=st.integers(0, 9), targets=targets)


@given(maps, names, names)
def test_rank_holds_each_target_that_is_up_once(cluster_map: ClusterMap, bucket: str, key: str) -> None:
    ranked = rank(cluster_map, bucket, key)
    up = {target.id for target in cluster_map.targets if target.state == "up"}
    assert sorted(target.id for target in ranked) == sorted(up)
    assert owner(cluster_map, bucket, key) == (ranked[0] if ranked else None)


@given(maps, names, names, st.randoms())
def test_rank_hangs_on_neither_order_nor_version_nor_address(
    cluster_map: ClusterMap, bucket: str, key: str, random
) -> None:  # type: ignore[no-untyped-def]
    moved = [replace(target, host="::1", port=1) for target in cluster_map.targets]
    random.shuffle(moved)
    ids = [target.id for target in rank(cluster_map, bucket, key)]
    assert [target.id for target in rank(ClusterMap(99, tuple(moved)), bucket, key)] == ids


@given(maps, names, names, st.data())
def test_a_target_that_goes_leaves_the_order_of_the_others(
    cluster_map: ClusterMap, bucket: str, key: str, data: st.DataObject
) -> None:
    ids = [target.id for target in rank(cluster_map, bucket, key)]
    if not ids:
        return
    gone = data.draw(st.sampled_from(ids))
    left = [other for other in ids if other != gone]
    assert [target.id for target in rank(cluster_map.with_state(gone, "down"), bucket, key)] == left
    assert [target.id for target in rank(cluster_map.without(gone), bucket, key)] == left


@given(maps, names, names, weights)
def test_a_heavier_weight_only_moves_keys_towards_it(
    cluster_map: ClusterMap, bucket: str, key: str, more: float
) -> None:
    ranked = rank(cluster_map, bucket, key)
    for place, target in enumerate(ranked):
        heavier = cluster_map.with_target(replace(target, weight=target.weight + more))
        after = [other.id for other in rank(heavier, bucket, key)]
        assert after.index(target.id) <= place
        assert [name for name in after if name != target.id] == [x.id for x in ranked if x.id != target.id]


def test_keys_fall_in_proportion_to_weight() -> None:
    cluster_map = ClusterMap(1, tuple(Target(f"t{n}", "127.0.0.1", 9000, weight=float(n)) for n in range(1, 5)))
    keys = 8000
    counts = Counter(rank(cluster_map, "bucket", f"key-{n}")[0].id for n in range(keys))
    for n in range(1, 5):
        share = n / 10
        assert abs(counts[f"t{n}"] / keys - share) < 5 * (share * (1 - share) / keys) ** 0.5


def test_a_new_target_takes_only_its_share() -> None:
    before = ClusterMap(1, tuple(Target(f"t{n}", "127.0.0.1", 9000) for n in range(4)))
    after = before.with_target(Target("new", "127.0.0.1", 9000))
    keys = 4000
    moves = [(owner(before, "b", str(n)), owner(after, "b", str(n))) for n in range(keys)]
    moved = [new for old, new in moves if old != new]
    assert {target.id for target in moved if target} == {"new"}
    assert abs(len(moved) / keys - 1 / 5) < 0.04


def test_bucket_and_key_do_not_run_together() -> None:
    cluster_map = ClusterMap(1, tuple(Target(f"t{n}", "127.0.0.1", 9000) for n in range(16)))
    splits = ["abcdefgh"[:n] for n in range(9)]
    orders = {tuple(t.id for t in rank(cluster_map, head, "abcdefgh"[len(head) :])) for head in splits}
    assert len(orders) == len(splits)


def test_placement_is_pinned() -> None:
    """Gateways of different releases must agree: a change of the hash is a change of the protocol."""
    cluster_map = ClusterMap(1, tuple(Target(f"t{n}", "127.0.0.1", 9000) for n in range(4)))
    ranked = rank(cluster_map, "photos", "cat.jpg")
    assert [target.id for target in ranked] == PINNED
    assert all(one.id != two.id for one, two in pairwise(ranked))


PINNED = ["t1", "t3", "t2", "t0"]
