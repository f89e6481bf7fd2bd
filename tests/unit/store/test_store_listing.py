"""A listing seeks past a common prefix rather than walk its keys."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from transom.target.store.listing import Page, roll_up


class Counting:
    """A sorted list of keys that counts the rows it hands out."""

    def __init__(self, keys: list[bytes]) -> None:
        self.keys = sorted(keys)
        self.walked = 0

    def __call__(self, key: bytes, id_: str) -> Iterator[tuple[bytes, str]]:
        for found in self.keys[bisect_left(self.keys, key) :]:
            self.walked += 1
            yield found, ""


def test_keys_below_a_common_prefix_are_not_walked() -> None:
    index = Counting([b"%d/%05d" % (folder, number) for folder in range(5) for number in range(1000)])
    entries, following = roll_up(index, Page(b"", b"/", (b"", ""), 1000))
    assert entries == [b"0/", b"1/", b"2/", b"3/", b"4/"]
    assert following is None
    assert index.walked == 5


def test_only_one_row_past_the_page_is_walked() -> None:
    index = Counting([b"%05d" % number for number in range(5000)])
    entries, following = roll_up(index, Page(b"", b"/", (b"00009", ""), 10))
    assert [entry[0] for entry in entries if isinstance(entry, tuple)] == [b"%05d" % n for n in range(10, 20)]
    assert following == (b"00019", "")
    assert index.walked == 11


def test_a_prefix_of_the_highest_bytes_ends_the_listing() -> None:
    index = Counting([b"\xff\xffa", b"\xff\xffb"])
    assert roll_up(index, Page(b"", b"\xff\xff", (b"", ""), 10)) == ([b"\xff\xff"], None)
