"""From what a writer said to what the store keeps beside the bytes."""

from __future__ import annotations

from transom.gateway.context import Principal
from transom.gateway.handlers import access, acls
from transom.s3compat.operations import NewAttributes
from transom.target.store.base import Attributes, Bucket


def stored_attributes(asked: NewAttributes, principal: Principal, bucket: Bucket) -> Attributes:
    """Return the attributes of an object the principal writes into the bucket."""
    owner = access.object_owner(principal, bucket)
    return Attributes(
        content=asked.content,
        metadata=asked.metadata,
        tags=asked.tags,
        owner=owner,
        acl=acls.object_acl(asked.acl, owner),
        storage_class=asked.storage_class,
    )
