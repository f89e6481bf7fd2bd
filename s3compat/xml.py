"""XML in, hardened against entities, size and depth; and XML out, in S3's namespace. It knows no operation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape

import xmltodict

from transom.s3compat.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
MAX_DEPTH = 16
MIB = 1024 * 1024

Element = Mapping[str, Any]

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")


def parse(body: bytes, root: str, *, limit_bytes: int = MIB) -> Element:
    """Return the root element's content: a mapping of child names to text, mappings, or lists of either.

    Any namespace, or none, is taken for S3's. What isn't well-formed, isn't UTF-8, declares a DTD, is nested deeper
    than 16 or has another root is refused with MalformedXML.
    """
    if len(body) > limit_bytes:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(limit_bytes))
    if not body.strip():
        raise S3Error("MissingRequestBodyError")
    try:
        text = body.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise S3Error("MalformedXML")
        document = xmltodict.parse(
            # An encoding declaration can't turn the bytes into something that wasn't looked at above.
            text.encode(),
            encoding="utf-8",
            process_namespaces=True,
            namespaces={NAMESPACE: None, XSI: "xsi"},
            strip_whitespace=False,
        )
    except (ExpatError, ValueError) as error:
        raise S3Error("MalformedXML") from error
    name, content = next(iter(document.items()))
    if _local(name) != root:
        raise S3Error("MalformedXML")
    cleaned = _clean(content, 1)
    return cleaned if isinstance(cleaned, Mapping) else {}


def _local(name: str) -> str:
    return name if name.startswith("@") else name.rpartition(":")[2]


def _clean(node: Any, depth: int) -> Any:
    """Drop namespace declarations and the white space between elements; keep text exactly."""
    if depth > MAX_DEPTH:
        raise S3Error("MalformedXML")
    if isinstance(node, list):
        return [_clean(each, depth) for each in node]
    if not isinstance(node, Mapping):
        return node or ""
    children = {_local(name): _clean(value, depth + 1) for name, value in node.items() if name[0] not in "#@"}
    attributes = {name: value for name, value in node.items() if name[0] == "@" and name != "@xmlns"}
    if children or attributes:
        return {**attributes, **children}
    return node.get("#text") or ""


def many(element: Element, name: str) -> list[Any]:
    """Return the children of that name, in order."""
    value = element.get(name)
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def elements(element: Element, name: str) -> list[Element]:
    """Return the children of that name that have children themselves; MalformedXML if one hasn't."""
    found = many(element, name)
    if not all(isinstance(each, Mapping) for each in found):
        raise S3Error("MalformedXML")
    return found


def text(element: Element, name: str) -> str | None:
    """Return a child's text, None where there is no such child; MalformedXML if it has children or is repeated."""
    value = element.get(name)
    if value is None or isinstance(value, str):
        return value
    raise S3Error("MalformedXML")


def required(element: Element, name: str) -> str:
    """Return a child's text; MalformedXML where there is none."""
    value = text(element, name)
    if value is None:
        raise S3Error("MalformedXML")
    return value


Rows = Sequence[tuple[str, Sequence[Element]]]


def to_xml(root: str, content: Element, *, rows: Rows = (), namespaced: bool = True) -> bytes:
    """Return the document. None leaves an element out, a sequence repeats it, bools and numbers are written as S3 does.

    A name starting with "@" is an attribute. `rows` are the entries of a listing, (element name, entries), put last:
    xmltodict takes ten times as long over a thousand of them. Characters that XML 1.0 can't hold go out as references,
    as S3 sends them: clients that may meet such keys ask for encoding-type=url.
    """
    filled = {"@xmlns": NAMESPACE, **content} if namespaced else dict(content)
    document: str = xmltodict.unparse({root: _prepare(filled)})
    if rows:
        end = f"</{root}>"
        written = [document.removesuffix(end)]
        for name, entries in rows:
            for entry in entries:
                _write(written, name, entry)
        document = "".join(written) + end
    if _UNSAFE.search(document):
        document = _UNSAFE.sub(lambda match: f"&#{ord(match.group())};", document)
    return document.encode()


def _prepare(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {name: _prepare(value) for name, value in node.items() if value is not None}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_prepare(each) for each in node]
    return _scalar(node)


def _write(written: list[str], name: str, node: Any) -> None:
    if node is None:
        return
    if isinstance(node, Mapping):
        written.append(f"<{name}>")
        for child, value in node.items():
            _write(written, child, value)
        written.append(f"</{name}>")
    elif isinstance(node, list | tuple):
        for each in node:
            _write(written, name, each)
    else:
        written.append(f"<{name}>{escape(_scalar(node))}</{name}>")


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
