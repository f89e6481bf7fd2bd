"""Loads an author's file and finds in it the one thing to serve."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from transom.worker.contract import Worker
from transom.worker.shapes import METHODS, methods_of

_MODULE = "transom_worker_code"


class LoadError(Exception):
    """The file holds nothing to serve, or it isn't clear what; the message is for its author."""


def load(path: Path, name: str = "") -> Any:
    """Run the file, and return its class or function: the one called `name`, or the only one there is.

    Raises LoadError, and whatever the file raises. Its folder is where it imports its neighbours from.
    """
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # pickles and dataclasses look their module up
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return _named(module, path, name) if name else _only(module, path)


def _named(module: ModuleType, path: Path, name: str) -> Any:
    found = getattr(module, name, None)
    if not callable(found) or (isinstance(found, type) and not methods_of(found)):
        raise LoadError(f"{path} has no class {name} with one of {', '.join(METHODS)}, and no function {name}")
    return found


def _only(module: ModuleType, path: Path) -> Any:
    """Return the one class made in the module that has a method to call, or the one function that is named like one.

    A class that another one there derives from is not meant itself.
    """
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    classes = [value for value in own if isinstance(value, type) and methods_of(value)]
    leaves = [value for value in classes if not any(value in other.__mro__[1:] for other in classes)]
    functions = [value for value in own if not isinstance(value, type) and getattr(value, "__name__", "") in METHODS]
    found = list(dict.fromkeys(leaves + functions))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(value.__name__ for value in found)
        raise LoadError(f"{path} has several things to serve ({names}): name one with --class")
    bare = [value.__name__ for value in own if isinstance(value, type) and issubclass(value, Worker)]
    hint = f": {bare[0]} has none of these methods" if bare else ""
    raise LoadError(f"{path} has no class with one of {', '.join(METHODS)}, and no function of such a name{hint}")
