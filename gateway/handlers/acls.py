"""Canned ACLs: the name that is kept for what a request asks, and the grants that a name stands for."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import access
from transom.gateway.handlers.bodies import read_document
from transom.gateway.handlers.versions import check_version
from transom.s3compat import documents
from transom.s3compat.acl import AccessControlPolicy, Grant, canned_name, canned_policy, parse_grant_headers
from transom.s3compat.errors import S3Error
from transom.s3compat.operations import AclAsk, GetBucketAcl, GetObjectAcl, PutBucketAcl, PutObjectAcl, parse_acl
from transom.s3compat.reply import Reply
from transom.target.store.base import ObjectInfo

_FOR_BUCKETS = frozenset({"private", "public-read", "public-read-write", "authenticated-read"})
_FOR_OBJECTS = _FOR_BUCKETS | {"bucket-owner-read", "bucket-owner-full-control"}
_XML = ("content-type", "application/xml")


def bucket_acl(asked: AclAsk, owner: str) -> str:
    """Return the canned ACL to keep for a bucket; NotImplemented where no canned one amounts to what is asked."""
    return _kept(asked, owner, _FOR_BUCKETS)


def object_acl(asked: AclAsk, owner: str) -> str:
    """Return the canned ACL to keep for an object; NotImplemented where no canned one amounts to what is asked."""
    return _kept(asked, owner, _FOR_OBJECTS)


async def get_bucket_acl(ctx: GatewayContext, call: Call, op: GetBucketAcl) -> Reply:
    """Tell the bucket's grants to its owner."""
    bucket = await access.owned_bucket(ctx, call, op)
    return Reply(200, [_XML], documents.access_control_policy(_groups_first(canned_policy(bucket.acl, bucket.owner))))


async def put_bucket_acl(ctx: GatewayContext, call: Call, op: PutBucketAcl) -> Reply:
    """Set the bucket's ACL, from the headers or else the body."""
    bucket = await access.owned_bucket(ctx, call, op)
    access.refuse_read_only(bucket)
    acl = bucket_acl(op.acl, bucket.owner) if op.acl else await _from_body(call, bucket.owner, _FOR_BUCKETS)
    if acl != bucket.acl:
        await ctx.store.set_bucket_acl(op.bucket, acl)
    return Reply(200, [])


async def get_object_acl(ctx: GatewayContext, call: Call, op: GetObjectAcl) -> Reply:
    """Tell the object's grants to its owner or the bucket's."""
    info, bucket_owner = await _administered(ctx, call, op)
    attributes = info.attributes
    policy = canned_policy(attributes.acl, attributes.owner or bucket_owner, bucket_owner=bucket_owner)
    return Reply(200, [_XML], documents.access_control_policy(_groups_first(policy)))


async def put_object_acl(ctx: GatewayContext, call: Call, op: PutObjectAcl) -> Reply:
    """Set the object's ACL, from the headers or else the body."""
    access.refuse_read_only(await access.known_bucket(ctx, op))
    info, bucket_owner = await _administered(ctx, call, op)
    owner = info.attributes.owner or bucket_owner
    acl = object_acl(op.acl, owner) if op.acl else await _from_body(call, owner, _FOR_OBJECTS)
    if acl != info.attributes.acl:
        await ctx.store.update(op.bucket, op.key, acl=acl)
    return Reply(200, [])


async def _administered(ctx: GatewayContext, call: Call, op: GetObjectAcl | PutObjectAcl) -> tuple[ObjectInfo, str]:
    check_version(op.version_id)
    bucket = await access.known_bucket(ctx, op)
    info = await access.readable_source(ctx, call, bucket, op.key)
    if not access.can_administer(call.principal, bucket, info):
        raise S3Error("AccessDenied")
    return info, bucket.owner


def _kept(asked: AclAsk, owner: str, known: Set[str]) -> str:
    if asked.grants:
        return _named(parse_grant_headers(asked.grants), owner, known)
    name = asked.canned or "private"
    if name not in known:
        raise S3Error("NotImplemented", f"The canned ACL {name} is not implemented here.")
    return name


async def _from_body(call: Call, owner: str, known: Set[str]) -> str:
    policy = parse_acl(await read_document(call))
    if policy.owner not in ("", owner):
        raise S3Error("AccessDenied", "An ACL can't change the owner.")
    if Grant("CanonicalUser", owner, "FULL_CONTROL") not in [replace(each, display_name="") for each in policy.grants]:
        raise _not_canned()
    return _named(policy.grants, owner, known)


def _named(grants: Iterable[Grant], owner: str, known: Set[str]) -> str:
    name = canned_name(grants, owner)
    if name is None or name not in known:
        raise _not_canned()
    return name


def _not_canned() -> S3Error:
    return S3Error("NotImplemented", "Only ACLs that amount to a canned one are implemented.")


def _groups_first(policy: AccessControlPolicy) -> AccessControlPolicy:
    return replace(policy, grants=tuple(sorted(policy.grants, key=lambda grant: grant.kind != "Group")))
