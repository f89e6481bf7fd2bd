"""The plain S3 operations, one handler each: what the gateway does when no transform and no view is in play."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from transom.gateway.context import Call, GatewayContext
from transom.gateway.handlers import (
    acls,
    buckets,
    completion,
    copies,
    listings,
    multipart,
    object_attributes,
    objects,
    reads,
    tagging,
)
from transom.s3compat import operations as ops
from transom.s3compat.reply import Reply

# Each takes the operation it stands under, which a mapping's type can't say.
Handler = Callable[[GatewayContext, Call, Any], Awaitable[Reply]]

HANDLERS: Mapping[type[ops.Operation], Handler] = MappingProxyType(
    {
        ops.ListBuckets: buckets.list_buckets,
        ops.CreateBucket: buckets.create_bucket,
        ops.HeadBucket: buckets.head_bucket,
        ops.DeleteBucket: buckets.delete_bucket,
        ops.GetBucketLocation: buckets.get_bucket_location,
        ops.GetBucketVersioning: buckets.get_bucket_versioning,
        ops.GetBucketAcl: acls.get_bucket_acl,
        ops.PutBucketAcl: acls.put_bucket_acl,
        ops.ListObjects: listings.list_objects,
        ops.ListObjectsV2: listings.list_objects_v2,
        ops.ListObjectVersions: listings.list_object_versions,
        ops.ListMultipartUploads: listings.list_multipart_uploads,
        ops.GetObject: reads.plain_get,
        ops.HeadObject: reads.plain_head,
        ops.PutObject: objects.put_object,
        ops.DeleteObject: objects.delete_object,
        ops.DeleteObjects: objects.delete_objects,
        ops.CopyObject: copies.copy_object,
        ops.GetObjectAcl: acls.get_object_acl,
        ops.PutObjectAcl: acls.put_object_acl,
        ops.GetObjectTagging: tagging.get_object_tagging,
        ops.PutObjectTagging: tagging.put_object_tagging,
        ops.DeleteObjectTagging: tagging.delete_object_tagging,
        ops.GetObjectAttributes: object_attributes.get_object_attributes,
        ops.CreateMultipartUpload: multipart.create_multipart_upload,
        ops.UploadPart: multipart.upload_part,
        ops.UploadPartCopy: multipart.upload_part_copy,
        ops.CompleteMultipartUpload: completion.complete_multipart_upload,
        ops.AbortMultipartUpload: multipart.abort_multipart_upload,
        ops.ListParts: multipart.list_parts,
    }
)
