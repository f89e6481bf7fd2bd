"""The hooks a plugin may implement, and the markers for them; nothing of who calls them.

Every hook is described in docs/reference/plugins.md, and a test holds that page to this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

from transom.plugins.contract import Transformer

PROJECT = "transom"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Stands in for a transformer whose library isn't installed; `reason` tells the user what to install."""

    name: str
    reason: str


@hookspec
def transom_transformers() -> Iterable[Transformer | Unavailable]:
    """Return the plugin's transformers, as instances; called once, at start."""
    raise NotImplementedError
