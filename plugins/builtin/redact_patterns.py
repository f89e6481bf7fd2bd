"""Where personal data and secrets lie in a text: one finder for each kind, over bytes that hold UTF-8.

A pattern finds candidates, code then checks digits and neighbours. What becomes of the places isn't known here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, Literal

from transom.plugins.builtin import regex

Span = tuple[int, int]
Finder = Callable[[bytes], Iterator[Span]]
Kind = Literal["email", "phone", "credit_card", "iban", "ssn", "ipv4", "ipv6", "secret"]

_CARD_DIGITS = range(13, 20)
_CARD_GROUP = 3  # digits at the least
_DIGITS = re.compile(rb"\d+")
_CARD_FIRST = b"23456"  # of the networks; 1 and 0 begin times and serial numbers
_IPV6_LENGTH = 45 + 2  # with an IPv4 address at the end, and a colon or dot of the sentence on each side
_IPV6_DIGITS = 3  # fewer, as in `::1` and `a::b`, say little of anybody
_IBAN_CHECKED = 97
_NO_SSN = (b"000", b"666")

# ISO 13616: how long each country's IBANs are.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL FK SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def finder(kind: Kind) -> Finder:
    """Return what finds the places of one kind, in any order."""
    return _FINDERS[kind]


def custom(pattern: str) -> Finder:
    """Return what finds a regular expression in one line. Raises ValueError for one that finds empty places."""
    compiled = regex.compiled(pattern)
    if compiled.search(b"") is not None:
        raise ValueError(f"the pattern {pattern!r} is found in an empty text")

    def find(line: bytes) -> Iterator[Span]:
        for match in compiled.finditer(line):
            start, end = match.span()
            if start < end:
                yield _whole_characters(line, start, end)

    return find


def _whole_characters(line: bytes, start: int, end: int) -> Span:
    """Widen a place to whole characters: a pattern may take single bytes."""
    while _continues(line, start):
        start -= 1
    while _continues(line, end):
        end += 1
    return start, end


def _continues(line: bytes, at: int) -> bool:
    return at < len(line) and line[at] & 0xC0 == 0x80  # noqa: PLR2004 (UTF-8's continuation bytes)


@cache
def _pattern(pattern: str) -> Any:
    return regex.compiled(pattern)


def _every(pattern: str) -> Finder:
    def find(text: bytes) -> Iterator[Span]:
        for match in _pattern(pattern).finditer(text):
            yield match.span()

    return find


def _value(pattern: str, *, digit: bool = False) -> Finder:
    """Find what a group of the pattern took; with `digit`, only if there is one in it, as in no word."""

    def find(text: bytes) -> Iterator[Span]:
        for match in _pattern(pattern).finditer(text):
            start, end = max(match.span(group) for group in range(1, match.re.groups + 1))
            if not digit or any(each in b"0123456789" for each in text[start:end]):
                yield start, end

    return find


def _apart(pattern: str) -> Finder:
    """Find what no digit stands right beside."""

    def find(text: bytes) -> Iterator[Span]:
        for match in _pattern(pattern).finditer(text):
            start, end = match.span()
            if not (text[start - 1 : start].isdigit() or text[end : end + 1].isdigit()):
                yield start, end

    return find


def _ssns(text: bytes) -> Iterator[Span]:
    for start, end in _apart(r"\d{3}[- ]\d{2}[- ]\d{4}")(text):
        area, group, serial = text[start : start + 3], text[start + 4 : start + 6], text[start + 7 : end]
        if area not in _NO_SSN and not area.startswith(b"9") and group != b"00" and serial != b"0000":
            yield start, end


def _cards(text: bytes) -> Iterator[Span]:
    """Find runs of whole groups of digits that a check digit confirms, however many groups stand around them."""
    for match in _pattern(r"\d(?:[ -]?\d){12,}").finditer(text):
        groups = [group.span() for group in _DIGITS.finditer(text, *match.span())]
        taken = 0
        for first, (start, _) in enumerate(groups):
            if start < taken or text[start] not in _CARD_FIRST:
                continue
            end = _card_end(text, groups[first : first + max(_CARD_DIGITS)])
            if end is not None:
                yield start, end
                taken = end


def _card_end(text: bytes, groups: Sequence[Span]) -> int | None:
    """Return where the card number ends that begins with the first group, None if none does."""
    for length, (start, end) in zip(accumulate(end - start for start, end in groups), groups, strict=True):
        if end - start < _CARD_GROUP:
            break
        if length in _CARD_DIGITS and _luhn(text[groups[0][0] : end]):
            return end
    return None


def _luhn(number: bytes) -> bool:
    digits = [digit - ord("0") for digit in reversed(number) if digit not in b" -"]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _ibans(text: bytes) -> Iterator[Span]:
    free = 0
    for match in _pattern(r"\b[A-Za-z]{2}\d{2}").finditer(text):
        start = match.start()
        length = _IBAN_LENGTHS.get(text[start : start + 2].decode().upper())
        if length is None or start < free:
            continue
        rest = re.compile(rb"(?:[ ]?[A-Za-z0-9]){%d}(?![A-Za-z0-9])" % (length - 4)).match(text, match.end())
        if rest is not None and _is_iban(text[start : rest.end()]):
            free = rest.end()
            yield start, free


def _is_iban(text: bytes) -> bool:
    plain = text.replace(b" ", b"").decode().upper()
    return int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % _IBAN_CHECKED == 1


def _ipv6s(text: bytes) -> Iterator[Span]:
    for match in _pattern(r"[0-9A-Fa-f.:]*(?:::|(?:[0-9A-Fa-f]+:){6})[0-9A-Fa-f.:]*").finditer(text):
        start, end = match.span()
        if text[start : start + 1] == b":" and text[start : start + 2] != b"::":
            start += 1
        if end - start > _IPV6_LENGTH or text[start - 1 : start].isalnum() or text[end : end + 1].isalnum():
            continue
        while text[end - 1 : end] == b"." or (text[end - 1 : end] == b":" and text[end - 2 : end] != b"::"):
            end -= 1
        if sum(text.count(digit, start, end) for digit in _HEX) >= _IPV6_DIGITS and _is_ipv6(text[start:end]):
            yield start, end


_HEX = [bytes([digit]) for digit in b"0123456789abcdefABCDEF"]


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode())
    except ValueError:
        return False
    return True


_SECRETS = [
    _every(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),  # access key ids of AWS
    _every(r"\bgh[opsur]_[0-9A-Za-z]{36,}|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}"),
    _every(r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}"),
    _every(r"\bAIza[\w-]{35}"),
    _every(r"\b[prs]k_(?:live|test)_[0-9A-Za-z]{10,}|\bsk-[\w-]{20,}"),
    _every(r"\beyJ[\w-]{5,}\.eyJ[\w-]+\.[\w-]*"),  # a JSON Web Token
    _value(r"(?i)\b(?:bearer|basic)[ \t]+([0-9a-z._~+/=-]{12,})", digit=True),
    _value(
        r"""(?i)(?:password|passwd|passphrase|secret|token|api[_-]?key|(?:access|private)[_-]?key)[\w-]*["']?"""
        r"""[ \t]*[:=][ \t]*(?:"([^"\n]{4,})"|'([^'\n]{4,})'|([^\s"',;]{6,}))"""
    ),
]


def _either(finders: Sequence[Finder]) -> Finder:
    def find(text: bytes) -> Iterator[Span]:
        for each in finders:
            yield from each(text)

    return find


_PHONES = [
    _apart(r"\+[1-9](?:[ ()/-]{0,3}\d){6,14}|\+[1-9]\d{0,2}(?:\.\d{1,4}){2,5}"),
    _apart(r"\(?\b[2-9]\d{2}\)?[ .-]{0,2}[2-9]\d{2}[ .-]\d{4}"),
]
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_FINDERS: dict[Kind, Finder] = {
    "email": _every(r"[\pL\pN._%+'-]+@(?:[\pL\pN](?:[\pL\pN-]*[\pL\pN])?\.)+[\pL\pN-]*[\pL\pN]"),
    "phone": _either(_PHONES),
    "credit_card": _cards,
    "iban": _ibans,
    "ssn": _ssns,
    "ipv4": _apart(rf"(?:{_OCTET}\.){{3}}{_OCTET}"),
    "ipv6": _ipv6s,
    "secret": _either(_SECRETS),
}
