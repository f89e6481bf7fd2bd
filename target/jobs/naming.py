"""Under which keys a job writes what it makes: from a source's key, the order and what the pipeline's stages say.

It knows nothing of stores. A job's names are decided before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from transom.plugins.contract import Reject, Skip, Transformer
from transom.target.errors import EtlFailed, EtlInputRejected, EtlSkipped, JobRefused, TargetError
from transom.target.etl.pipeline import Bound
from transom.target.jobs.order import Order, Place

MAX_KEY_BYTES = 1024  # of S3


@dataclass(frozen=True, slots=True)
class Naming:
    """How an order's objects are named. Names are relative: to the source's prefix, and below the destination's.

    A source that is one key has its last part for a name. `exact` is the destination's key where the order names it;
    then nothing else has a say.
    """

    source: Place
    folder: str = ""  # the destination's prefix, empty or ending in "/"
    exact: str = ""
    prepend: str = ""
    extensions: Mapping[str, str] | None = None

    @classmethod
    def of(cls, order: Order) -> Naming:
        """The naming of a job's objects; a sort's destination is always a prefix."""
        path = order.destination.path if order.destination is not None else ""
        if order.kind != "sort" and not order.source.is_prefix and path and not path.endswith("/"):
            return cls(order.source, exact=path)
        folder = path if not path or path.endswith("/") else f"{path}/"
        return cls(order.source, folder, prepend=order.prepend, extensions=order.ext)

    def relative(self, key: str) -> str:
        """A source key's name. Empty for one that is the prefix itself, which stands for a folder and is no object."""
        if self.source.is_prefix:
            return key.removeprefix(self.source.path)
        return key.rpartition("/")[2]

    def destination(self, key: str, stages: Sequence[Bound]) -> str:
        """The key that an object becomes.

        The stages are asked in order, each with the name so far for its key: for an `output_key`, else for an
        extension. Where none gave a key, the order's `ext` counts more than their extensions. Raises JobRefused for a
        key that no object can have, naming the source's, and what stages raise as their ETL's errors: EtlSkipped,
        EtlInputRejected, EtlFailed.
        """
        made = self.exact or self.folder + self.prepend + self._renamed(self.relative(key), stages)
        size = len(made.encode("utf-8", "surrogatepass"))
        if not 0 < size <= MAX_KEY_BYTES:
            raise JobRefused(
                f"'{key}' would become a key of {size} bytes; S3 allows 1 to {MAX_KEY_BYTES}. Use a shorter"
                " destination or prepend, or leave it out with match"
            )
        return made

    def _renamed(self, name: str, stages: Sequence[Bound]) -> str:
        made, keyed = name, False
        for bound in stages:
            key, extension = None, bound.transformer.extension
            if names_by_object(bound.transformer):
                context = bound.context if bound.context.key == made else replace(bound.context, key=made)
                with asking(bound.stage.etl):
                    key = bound.transformer.output_key(context)
                    extension = bound.transformer.output_extension(context)
            if key is not None:
                made, keyed = key, True
            elif extension:
                made = with_extension(made, extension)
        wanted = (self.extensions or {}).get(extension_of(name))
        return made if keyed or wanted is None else with_extension(name, wanted)


def names_by_object(transformer: Transformer) -> bool:
    """Whether what a transformer says of its output's name may depend on the object; else its class says it all."""
    kind = type(transformer)
    return kind.output_key is not Transformer.output_key or kind.output_extension is not Transformer.output_extension


def extension_of(name: str) -> str:
    """What follows the last dot of a name's last part; a dot at its beginning begins none."""
    last = name.rpartition("/")[2]
    stem, _, extension = last.rpartition(".")
    return extension if stem else ""


def with_extension(name: str, extension: str) -> str:
    """A name with another extension, or one where it has none; one that ends in "/" stays as it is."""
    folder, slash, last = name.rpartition("/")
    if not last:
        return name
    stem = last.rpartition(".")[0] or last
    return f"{folder}{slash}{stem}.{extension}"


@contextmanager
def asking(etl: str) -> Iterator[None]:
    """Turn what transformers raise when they are asked about an output into their ETL's errors."""
    try:
        yield
    except TargetError:
        raise
    except Skip as error:
        raise EtlSkipped(f"ETL '{etl}' leaves this object out{_because(error)}", etl=etl) from error
    except Reject as error:
        raise EtlInputRejected(f"ETL '{etl}' can't transform this object{_because(error)}", etl=etl) from error
    except Exception as error:
        reason = f"{type(error).__name__}{_because(error)}"
        raise EtlFailed(f"ETL '{etl}' could not say what its output is: {reason}", etl=etl) from error


def _because(error: Exception) -> str:
    return f": {error}" if str(error) else ""
