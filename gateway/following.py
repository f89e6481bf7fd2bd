"""Which clients are known to follow a redirect, by what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping

from transom.gateway.config import ClusterConfig

FOLLOWS_HEADER = "x-transom-follows-redirects"


def follows(config: ClusterConfig, headers: Mapping[str, str]) -> bool:
    """Whether to redirect a client with these headers, their names in lower case."""
    if config.redirect != "auto":
        return config.redirect == "always"
    return FOLLOWS_HEADER in headers or headers.get("user-agent", "").startswith(config.followers)
