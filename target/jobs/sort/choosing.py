"""Which objects a sort reads: those that its order chooses, as sources with the names that they are members by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from transom.target.jobs.naming import Naming
from transom.target.jobs.order import Order
from transom.target.jobs.records import Selected
from transom.target.jobs.select import Page, choose
from transom.target.jobs.site import Site
from transom.target.jobs.sort.sources import SourceObject, kind_of


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some of the objects, in order, and those that failed already."""

    sources: list[SourceObject]
    failed: list[Selected]


def chosen(site: Site, order: Order) -> Iterator[Chosen]:
    """Yield an order's objects, page by page; blocking. Raises what `transom.target.jobs.select` does."""
    pages, relative, numbers = choose(site.store, order, lambda _: ""), Naming.of(order).relative, itertools.count()

    async def following() -> Page | None:
        return await anext(pages, None)

    while (page := site.wait(following())) is not None:
        found = Chosen([], [each for each in page.selected if each.code])
        for each in page.selected:
            name = relative(each.key)
            # what ends in "/" and is empty stands for a folder
            if not each.code and (each.size or not name.endswith("/")):
                member = name.encode("utf-8", "surrogatepass")
                at = (next(numbers), order.source.bucket, each.key, each.size, each.etag)
                found.sources.append(SourceObject(*at, kind_of(name), member))
        yield found
