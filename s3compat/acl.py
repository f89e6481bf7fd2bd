"""ACLs as values: canned names, grants, and which canned ACL a list of grants amounts to.

It decides nothing: who may do what is the gateway's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from transom.s3compat.errors import S3Error

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED_USERS = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOG_DELIVERY = "http://acs.amazonaws.com/groups/s3/LogDelivery"

PERMISSIONS = ("FULL_CONTROL", "READ", "WRITE", "READ_ACP", "WRITE_ACP")
GRANT_HEADERS: Mapping[str, str] = MappingProxyType(
    {"x-amz-grant-" + permission.lower().replace("_", "-"): permission for permission in PERMISSIONS}
)

# What each canned ACL grants beside the owner's FULL_CONTROL, as (group URI, permission).
CANNED: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "private": (),
        "public-read": ((ALL_USERS, "READ"),),
        "public-read-write": ((ALL_USERS, "READ"), (ALL_USERS, "WRITE")),
        "authenticated-read": ((AUTHENTICATED_USERS, "READ"),),
        "aws-exec-read": (),
        "bucket-owner-read": (),
        "bucket-owner-full-control": (),
        "log-delivery-write": ((LOG_DELIVERY, "WRITE"), (LOG_DELIVERY, "READ_ACP")),
    }
)


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant. `kind` is CanonicalUser, Group or AmazonCustomerByEmail; `grantee` the id, URI or address."""

    kind: str
    grantee: str
    permission: str
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class AccessControlPolicy:
    """An owner and the grants made."""

    owner: str
    grants: tuple[Grant, ...]


def canned_policy(name: str, owner: str, display_name: str = "", *, bucket_owner: str = "") -> AccessControlPolicy:
    """Return the grants a canned ACL stands for, the owner's first; `bucket_owner` matters to bucket-owner-*."""
    grants = [Grant("CanonicalUser", owner, "FULL_CONTROL", display_name or owner)]
    grants += [Grant("Group", uri, permission) for uri, permission in CANNED[name]]
    if name.startswith("bucket-owner-") and bucket_owner and bucket_owner != owner:
        permission = "READ" if name == "bucket-owner-read" else "FULL_CONTROL"
        grants.append(Grant("CanonicalUser", bucket_owner, permission, bucket_owner))
    return AccessControlPolicy(owner, tuple(grants))


def canned_name(grants: Iterable[Grant], owner: str) -> str | None:
    """Return the canned ACL that amounts to these grants, or None; the owner's own grants count for nothing."""
    others = set()
    for grant in grants:
        if grant.kind == "CanonicalUser" and grant.grantee == owner:
            continue
        if grant.kind != "Group":
            return None
        others.add((grant.grantee, grant.permission))
    for name, granted in CANNED.items():
        if set(granted) == others:
            return name
    return None


def parse_grant_headers(headers: Mapping[str, str]) -> tuple[Grant, ...]:
    """Read x-amz-grant-* headers: id="…", uri="…" or emailAddress="…", several joined by commas."""
    kinds = {"id": "CanonicalUser", "uri": "Group", "emailaddress": "AmazonCustomerByEmail"}
    grants = []
    for name, permission in GRANT_HEADERS.items():
        for piece in filter(None, map(str.strip, headers.get(name, "").split(","))):
            key, equals, value = piece.partition("=")
            kind = kinds.get(key.strip().lower())
            if not equals or kind is None:
                raise S3Error("InvalidArgument", ArgumentName=name, ArgumentValue=headers[name])
            grants.append(Grant(kind, value.strip().strip('"'), permission))
    return tuple(grants)
