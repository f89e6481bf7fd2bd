"""Finds plugins, asks them for their transformers, and keeps what passed the checks in a frozen registry.

It runs no transformer and knows nothing of ETLs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import cast

import pluggy

from transom.plugins import builtin, hookspecs
from transom.plugins.checks import check_transformer
from transom.plugins.contract import Transformer
from transom.plugins.errors import LoadError
from transom.plugins.hookspecs import PROJECT, Unavailable


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a transformer came from; `distribution` and `version` are empty for code of no installed package."""

    plugin: str
    distribution: str = ""
    version: str = ""

    def __str__(self) -> str:
        package = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"plugin '{self.plugin}'{package}"


class Transformers(Mapping[str, Transformer]):
    """The transformers that are installed, by name; frozen.

    `missing` maps the name of what could not be imported (a transformer, or a whole plugin) to the reason.
    """

    def __init__(
        self, transformers: Mapping[str, Transformer], origins: Mapping[str, Origin], missing: Mapping[str, str]
    ) -> None:
        self._transformers = dict(sorted(transformers.items()))
        self._origins = dict(origins)
        self.missing: Mapping[str, str] = MappingProxyType(dict(missing))

    def __getitem__(self, name: str) -> Transformer:
        return self._transformers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._transformers)

    def __len__(self) -> int:
        return len(self._transformers)

    def origin(self, name: str) -> Origin:
        """Tell which plugin and distribution the transformer came from. Raises KeyError."""
        return self._origins[name]

    def why_not(self, name: str) -> str:
        """Say why `name` can't be looked up: what to install, or which name is near."""
        if name in self.missing:
            return f"transformer '{name}' is not available: {self.missing[name]}"
        near = difflib.get_close_matches(name, self._transformers, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"there is no transformer '{name}'{hint}"


def load(extra: Sequence[object] = (), entry_points: bool = True) -> Transformers:
    """Load the built-in plugin, those installed (unless `entry_points` is false) and `extra` plugin objects.

    A plugin that can't be imported for want of a library is listed in `missing`; anything else wrong with one
    raises LoadError, naming it.
    """
    loader = _Loader()
    loader.register(builtin, Origin("builtin", *_distribution(PROJECT)))
    if entry_points:
        for point in sorted(metadata.entry_points(group=PROJECT), key=lambda point: (point.name, point.value)):
            loader.import_entry_point(point)
    for plugin in extra:
        loader.register(plugin, Origin(_plugin_name(plugin)))
    return loader.collect()


class _Loader:
    """Builds one registry; thrown away afterwards."""

    def __init__(self) -> None:
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._hooks = ", ".join(sorted(vars(self._pluggy.hook)))  # as specified: registering adds misspelt ones
        self._plugins: list[tuple[object, Origin]] = []
        self._transformers: dict[str, Transformer] = {}
        self._origins: dict[str, Origin] = {}
        self._missing: dict[str, str] = {}

    def import_entry_point(self, point: metadata.EntryPoint) -> None:
        distribution = point.dist
        origin = Origin(point.name, distribution.name, distribution.version) if distribution else Origin(point.name)
        try:
            plugin = point.load()
        except ImportError as error:
            self._missing[point.name] = _import_reason(error, point, origin)
        except Exception as error:
            raise LoadError(f"{origin} failed while being imported from {point.value}: {error!r}") from error
        else:
            if not self._pluggy.is_registered(plugin):
                self.register(plugin, origin)

    def register(self, plugin: object, origin: Origin) -> None:
        try:
            self._pluggy.register(plugin, name=f"{len(self._plugins)}:{origin.plugin}")
            self._pluggy.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise LoadError(f"{origin} does not fit the hooks ({self._hooks}): {reason}") from error
        if not self._pluggy.get_hookcallers(plugin):
            raise LoadError(f"{origin} implements no hook: mark a function with @transom.plugins.hookimpl")
        self._plugins.append((plugin, origin))

    def collect(self) -> Transformers:
        # Each plugin is asked by itself: a call of the hook for all would lose whose answer is whose.
        hooks = self._pluggy.hook.transom_transformers.get_hookimpls()
        for plugin, origin in self._plugins:
            try:
                found = [each for hook in hooks if hook.plugin is plugin for each in _answer(hook)]
            except Exception as error:
                raise LoadError(f"{origin} failed to give its transformers: {error!r}") from error
            self._add(found, origin)
        missing = {name: reason for name, reason in self._missing.items() if name not in self._transformers}
        return Transformers(self._transformers, self._origins, missing)

    def _add(self, found: Iterable[object], origin: Origin) -> None:
        for each in found:
            if isinstance(each, Unavailable):
                self._missing[each.name] = each.reason
                continue
            try:
                transformer = check_transformer(each)
            except LoadError as error:
                raise LoadError(f"{origin}: {error}") from error
            name = transformer.name
            if name in self._transformers:
                raise LoadError(f"transformer '{name}' comes from both {self._origins[name]} and {origin}")
            self._transformers[name] = transformer
            self._origins[name] = origin


def _answer(hook: pluggy.HookImpl) -> Iterable[object]:
    return cast(Iterable[object], hook.function())


def _import_reason(error: ImportError, point: metadata.EntryPoint, origin: Origin) -> str:
    if point.extras and origin.distribution:
        return f"{error}: pip install '{origin.distribution}[{','.join(point.extras)}]'"
    return f"{origin} can't be imported: {error}"


def _distribution(name: str) -> tuple[str, ...]:
    """Return the name and version of an installed distribution, nothing when it isn't installed."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return ()
    return found.name, found.version


def _plugin_name(plugin: object) -> str:
    name = getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else type(plugin).__qualname__
