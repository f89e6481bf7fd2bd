"""What loading plugins and calling transformers can refuse with, beside the author's own `Skip` and `Reject`.

It knows nothing of targets, S3 or HTTP: the target maps these to its own errors.
"""

from __future__ import annotations

from transom.plugins.contract import Reject


class PluginError(Exception):
    """Base of what goes wrong with a plugin; the message names the plugin or the ETL."""


class LoadError(PluginError):
    """A plugin can't be used as it is: the start fails."""


class ContractError(PluginError):
    """A transformer broke the contract while it ran: a wrong type, or an output outside of its folder."""


class ArgsError(PluginError):
    """Arguments don't fit a transformer's schema; `argument` is empty when no single one is to blame."""

    def __init__(self, etl: str, reason: str, *, argument: str = "") -> None:
        self.etl = etl
        self.argument = argument
        self.reason = reason
        where = f"ETL '{etl}', argument '{argument}'" if argument else f"ETL '{etl}'"
        self.message = f"{where}: {reason}"
        super().__init__(self.message)


class InputTooLarge(Reject):
    """A transformer that wants the whole object in memory was given more than the bound."""
