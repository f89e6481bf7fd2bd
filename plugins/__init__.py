"""What a plugin author imports: the contract, the marker for hooks, and nothing that runs them."""

from transom.plugins.contract import Context, NoArgs, Reject, Skip, Transformer
from transom.plugins.hookspecs import Unavailable, hookimpl

__all__ = ["Context", "NoArgs", "Reject", "Skip", "Transformer", "Unavailable", "hookimpl"]
