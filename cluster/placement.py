"""Who owns a key: weighted rendezvous hashing over the targets of a cluster map that are up.

Pure arithmetic: every process with the same map names the same owner. It knows nothing of health or sockets.
"""

from __future__ import annotations

from hashlib import blake2b
from math import log
from operator import itemgetter

from transom.cluster.map import ClusterMap, Target

# 52 bits and a half bit are exact in a float, so the fraction is never 0 or 1 and its logarithm is always below 0.
_SCALE = float(1 << 52)


def rank(cluster_map: ClusterMap, bucket: str, key: str) -> tuple[Target, ...]:
    """Targets that are up, the key's owner first; empty when none is.

    A target's score hangs on nothing but itself and the key, so one that leaves moves only its own keys.
    """
    base = blake2b(_field(bucket) + _field(key), digest_size=8)
    scored = []
    for target in cluster_map.targets:
        if target.state != "up":
            continue
        digest = base.copy()
        digest.update(_field(target.id))
        fraction = ((int.from_bytes(digest.digest(), "big") >> 12) + 0.5) / _SCALE
        scored.append((-target.weight / log(fraction), target.id, target))
    scored.sort(key=itemgetter(0, 1), reverse=True)
    return tuple(target for _, _, target in scored)


def owner(cluster_map: ClusterMap, bucket: str, key: str) -> Target | None:
    """The first in rank, None when no target is up."""
    ranked = rank(cluster_map, bucket, key)
    return ranked[0] if ranked else None


def _field(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(8, "big") + data
