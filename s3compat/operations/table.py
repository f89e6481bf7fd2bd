"""The whole S3 API as data: which method, level and subresource make which operation. No parsing here.

Names and subresources are those of Amazon's service model (2006-03-01).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Level = Literal["service", "bucket", "object"]

# (method, level) -> {subresource: operation}; "" is the request without any.
_ROWS: dict[tuple[str, Level], dict[str, str]] = {
    ("GET", "service"): {"": "ListBuckets"},
    ("POST", "service"): {},
    ("GET", "bucket"): {
        "": "ListObjects",
        "list-type": "ListObjectsV2",
        "abac": "GetBucketAbac",
        "accelerate": "GetBucketAccelerateConfiguration",
        "acl": "GetBucketAcl",
        "analytics": "ListBucketAnalyticsConfigurations",
        "analytics&id": "GetBucketAnalyticsConfiguration",
        "cors": "GetBucketCors",
        "encryption": "GetBucketEncryption",
        "intelligent-tiering": "ListBucketIntelligentTieringConfigurations",
        "intelligent-tiering&id": "GetBucketIntelligentTieringConfiguration",
        "inventory": "ListBucketInventoryConfigurations",
        "inventory&id": "GetBucketInventoryConfiguration",
        "lifecycle": "GetBucketLifecycleConfiguration",
        "location": "GetBucketLocation",
        "logging": "GetBucketLogging",
        "metadataConfiguration": "GetBucketMetadataConfiguration",
        "metadataTable": "GetBucketMetadataTableConfiguration",
        "metrics": "ListBucketMetricsConfigurations",
        "metrics&id": "GetBucketMetricsConfiguration",
        "notification": "GetBucketNotificationConfiguration",
        "object-lock": "GetObjectLockConfiguration",
        "ownershipControls": "GetBucketOwnershipControls",
        "policy": "GetBucketPolicy",
        "policyStatus": "GetBucketPolicyStatus",
        "publicAccessBlock": "GetPublicAccessBlock",
        "replication": "GetBucketReplication",
        "requestPayment": "GetBucketRequestPayment",
        "session": "CreateSession",
        "tagging": "GetBucketTagging",
        "uploads": "ListMultipartUploads",
        "versioning": "GetBucketVersioning",
        "versions": "ListObjectVersions",
        "website": "GetBucketWebsite",
    },
    ("HEAD", "bucket"): {"": "HeadBucket"},
    ("PUT", "bucket"): {
        "": "CreateBucket",
        "abac": "PutBucketAbac",
        "accelerate": "PutBucketAccelerateConfiguration",
        "acl": "PutBucketAcl",
        "analytics": "PutBucketAnalyticsConfiguration",
        "cors": "PutBucketCors",
        "encryption": "PutBucketEncryption",
        "intelligent-tiering": "PutBucketIntelligentTieringConfiguration",
        "inventory": "PutBucketInventoryConfiguration",
        "lifecycle": "PutBucketLifecycleConfiguration",
        "logging": "PutBucketLogging",
        "metadataAnnotationTable": "UpdateBucketMetadataAnnotationTableConfiguration",
        "metadataInventoryTable": "UpdateBucketMetadataInventoryTableConfiguration",
        "metadataJournalTable": "UpdateBucketMetadataJournalTableConfiguration",
        "metrics": "PutBucketMetricsConfiguration",
        "notification": "PutBucketNotificationConfiguration",
        "object-lock": "PutObjectLockConfiguration",
        "ownershipControls": "PutBucketOwnershipControls",
        "policy": "PutBucketPolicy",
        "publicAccessBlock": "PutPublicAccessBlock",
        "replication": "PutBucketReplication",
        "requestPayment": "PutBucketRequestPayment",
        "tagging": "PutBucketTagging",
        "versioning": "PutBucketVersioning",
        "website": "PutBucketWebsite",
    },
    ("DELETE", "bucket"): {
        "": "DeleteBucket",
        "analytics": "DeleteBucketAnalyticsConfiguration",
        "cors": "DeleteBucketCors",
        "encryption": "DeleteBucketEncryption",
        "intelligent-tiering": "DeleteBucketIntelligentTieringConfiguration",
        "inventory": "DeleteBucketInventoryConfiguration",
        "lifecycle": "DeleteBucketLifecycle",
        "metadataConfiguration": "DeleteBucketMetadataConfiguration",
        "metadataTable": "DeleteBucketMetadataTableConfiguration",
        "metrics": "DeleteBucketMetricsConfiguration",
        "ownershipControls": "DeleteBucketOwnershipControls",
        "policy": "DeleteBucketPolicy",
        "publicAccessBlock": "DeletePublicAccessBlock",
        "replication": "DeleteBucketReplication",
        "tagging": "DeleteBucketTagging",
        "website": "DeleteBucketWebsite",
    },
    ("POST", "bucket"): {
        "delete": "DeleteObjects",
        "metadataConfiguration": "CreateBucketMetadataConfiguration",
        "metadataTable": "CreateBucketMetadataTableConfiguration",
    },
    ("GET", "object"): {
        "": "GetObject",
        "acl": "GetObjectAcl",
        "annotation": "ListObjectAnnotations",
        "annotation&annotationName": "GetObjectAnnotation",
        "attributes": "GetObjectAttributes",
        "legal-hold": "GetObjectLegalHold",
        "retention": "GetObjectRetention",
        "tagging": "GetObjectTagging",
        "torrent": "GetObjectTorrent",
        "uploadId": "ListParts",
    },
    ("HEAD", "object"): {"": "HeadObject"},
    ("PUT", "object"): {
        "": "PutObject",
        "acl": "PutObjectAcl",
        "annotation": "PutObjectAnnotation",
        "encryption": "UpdateObjectEncryption",
        "legal-hold": "PutObjectLegalHold",
        "renameObject": "RenameObject",
        "retention": "PutObjectRetention",
        "tagging": "PutObjectTagging",
        "uploadId": "UploadPart",
    },
    ("DELETE", "object"): {
        "": "DeleteObject",
        "annotation": "DeleteObjectAnnotation",
        "tagging": "DeleteObjectTagging",
        "uploadId": "AbortMultipartUpload",
    },
    ("POST", "object"): {
        "restore": "RestoreObject",
        "select": "SelectObjectContent",
        "uploadId": "CompleteMultipartUpload",
        "uploads": "CreateMultipartUpload",
    },
}

OPERATIONS: Mapping[tuple[str, Level], Mapping[str, str]] = MappingProxyType(
    {key: MappingProxyType(row) for key, row in _ROWS.items()}
)

# A second parameter that, beside its subresource, makes another operation of the request.
REFINED_BY: Mapping[str, str] = MappingProxyType(
    {"analytics": "id", "intelligent-tiering": "id", "inventory": "id", "metrics": "id", "annotation": "annotationName"}
)

# Every subresource of a level: one that a method has no operation for must not fall back to the plain request,
# or DELETE ?acl would delete the object.
SUBRESOURCES: Mapping[Level, frozenset[str]] = MappingProxyType(
    {
        level: frozenset(
            name
            for (_, each), row in _ROWS.items()
            if each == level
            for name in row
            if name and "&" not in name and name != "list-type"
        )
        for level in ("service", "bucket", "object")
    }
)

# These have no subresource: a header or the form of the body tells them from another operation.
BY_OTHER_MEANS = ("CopyObject", "UploadPartCopy", "PostObject", "WriteGetObjectResponse", "ListDirectoryBuckets")
