"""The S3 error catalogue as data, the exception that carries one, and its XML.

The target's errors are mapped here by class name, so that neither side imports the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from xml.sax.saxutils import escape

_NOT_IMPLEMENTED = "A header you provided implies functionality that is not implemented."

CATALOGUE: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        # --- who may do what ------------------------------------------------------------------
        "AccessDenied": (403, "Access Denied"),
        "AccessForbidden": (403, "CORSResponse: CORS is not enabled for this bucket."),
        "AllAccessDisabled": (403, "All access to this object has been disabled."),
        "AccountProblem": (403, "There is a problem with your account that prevents the operation."),
        "AuthorizationHeaderMalformed": (400, "The authorization header that you provided is not valid."),
        "AuthorizationQueryParametersError": (400, "The authorization query parameters are not valid."),
        "CredentialsNotSupported": (400, "This request does not support credentials."),
        "ExpiredToken": (400, "The provided token has expired."),
        "InvalidAccessKeyId": (403, "The access key ID you provided does not exist in our records."),
        "InvalidSecurity": (403, "The provided security credentials are not valid."),
        "InvalidToken": (400, "The provided token is malformed or otherwise not valid."),
        "MissingSecurityHeader": (400, "Your request is missing a required header."),
        "RequestTimeTooSkewed": (403, "The difference between the request time and the server's time is too large."),
        "SignatureDoesNotMatch": (
            403,
            "The request signature that the server calculated does not match the signature that you provided. "
            "Check your secret access key and signing method.",
        ),
        # --- what isn't there, or is already --------------------------------------------------
        "BucketAlreadyExists": (409, "The requested bucket name is not available. Select a different name."),
        "BucketAlreadyOwnedByYou": (409, "The bucket that you tried to create already exists, and you own it."),
        "BucketNotEmpty": (409, "The bucket that you tried to delete is not empty."),
        "NoSuchBucket": (404, "The specified bucket does not exist."),
        "NoSuchBucketPolicy": (404, "The bucket policy does not exist."),
        "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist."),
        "NoSuchKey": (404, "The specified key does not exist."),
        "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist."),
        "NoSuchObjectLockConfiguration": (404, "The specified object does not have an ObjectLock configuration."),
        "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found."),
        "NoSuchTagSet": (404, "The TagSet does not exist."),
        "NoSuchTagSetError": (404, "The TagSet does not exist."),
        "NoSuchUpload": (
            404,
            "The specified multipart upload does not exist. "
            "The upload ID may be invalid, or the upload may have been aborted or completed.",
        ),
        "NoSuchVersion": (404, "The specified version does not exist."),
        "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration."),
        "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket."),
        "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found."),
        "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found."),
        "ServerSideEncryptionConfigurationNotFoundError": (404, "The encryption configuration was not found."),
        # --- what can't be understood ---------------------------------------------------------
        "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what was received."),
        "BadRequest": (400, "Bad Request"),
        "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
        "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed object size."),
        "ExcessHeaderValues": (400, "A header that must appear once appears several times."),
        "IllegalLocationConstraintException": (400, "The location constraint does not suit this endpoint."),
        "IncompleteBody": (400, "The request body is shorter or longer than its Content-Length says."),
        "InlineDataTooLarge": (400, "The inline data exceeds the maximum allowed size."),
        "InvalidArgument": (400, "Invalid Argument"),
        "InvalidBucketAclWithObjectOwnership": (400, "Bucket cannot have ACLs set with ObjectOwnership's setting."),
        "InvalidBucketName": (400, "The specified bucket is not valid."),
        "InvalidBucketState": (409, "The request is not valid for the current state of the bucket."),
        "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
        "InvalidEncryptionAlgorithmError": (400, "The encryption request that you specified is not valid."),
        "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
        "InvalidObjectState": (403, "The operation is not valid for the current state of the object."),
        "InvalidPart": (
            400,
            "One or more of the specified parts could not be found. "
            "The part might not have been uploaded, or the specified entity tag might not match the part's.",
        ),
        "InvalidPartNumber": (416, "The requested partnumber is not satisfiable."),
        "InvalidPartOrder": (400, "The list of parts was not in ascending order. Order parts by part number."),
        "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions of the policy document."),
        "InvalidRange": (416, "The requested range is not satisfiable."),
        "InvalidRequest": (400, "Invalid Request"),
        "InvalidStorageClass": (400, "The storage class that you specified is not valid."),
        "InvalidTag": (400, "The tag provided was not a valid tag."),
        "InvalidTargetBucketForLogging": (400, "The target bucket for logging does not exist."),
        "InvalidURI": (400, "Couldn't parse the specified URI."),
        "InvalidChunkSizeError": (400, "Only the last chunk is allowed to have a size less than 8192 bytes."),
        "KeyTooLongError": (400, "Your key is too long."),
        "MalformedACLError": (400, "The XML that you provided was not well-formed or did not validate."),
        "MalformedPolicy": (400, "The policy is not in the valid JSON format."),
        "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed."),
        "MalformedXML": (400, "The XML you provided was not well-formed or did not validate against our schema."),
        "MaxMessageLengthExceeded": (400, "Your request was too large."),
        "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
        "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
        "MissingRequestBodyError": (400, "Request body is empty."),
        "RequestHeaderSectionTooLarge": (400, "Your request header section exceeds the maximum allowed size."),
        "RequestTimeout": (400, "Your socket connection to the server was not read from or written to in time."),
        "TooManyBuckets": (400, "You have attempted to create more buckets than are allowed."),
        "UnresolvableGrantByEmailAddress": (400, "The e-mail address you provided does not match any account."),
        "UserKeyMustBeSpecified": (400, "The bucket POST must contain the specified field name."),
        "XAmzContentChecksumMismatch": (400, "The provided x-amz-checksum header does not match what was computed."),
        "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' does not match what was computed."),
        # --- what can't be done ---------------------------------------------------------------
        "ConditionalRequestConflict": (409, "A conflicting operation occurred during the request. Try again."),
        "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
        "NotImplemented": (501, _NOT_IMPLEMENTED),
        "OperationAborted": (409, "A conflicting conditional operation is in progress against this resource."),
        "PermanentRedirect": (301, "The bucket that you are trying to reach must be addressed elsewhere."),
        "PreconditionFailed": (412, "At least one of the preconditions that you specified did not hold."),
        "NotModified": (304, "Not Modified"),
        "InternalError": (500, "An internal error occurred. Try again."),
        "ServiceUnavailable": (503, "Service is unable to handle request."),
        "SlowDown": (503, "Please reduce your request rate."),
        "StorageFull": (507, "There is no room left for the data."),
        # --- transforms (WIRE.md) -------------------------------------------------------------
        "EtlInputRejected": (422, "The transformer can't use this object."),
        "EtlFailed": (500, "The transformer failed."),
        "EtlExited": (500, "The transformer's program failed."),
        "EtlCrashed": (500, "The transformer's worker died."),
        "EtlDisconnected": (502, "The connection to the transformer's worker broke."),
        "EtlOutOfMemory": (507, "The transformer needed more memory than it may have."),
        "EtlLimitReached": (507, "The transformer reached a limit on what it may use."),
        "EtlOutputTooLarge": (507, "The transformer's output exceeds the configured bound."),
        "EtlTimeout": (504, "The transform did not finish in time."),
        "EtlUnavailable": (503, "The ETL is stopped, or has failed too often to be tried now."),
    }
)


class S3Error(Exception):
    """An answer other than success. `fields` become XML elements; the message is public."""

    def __init__(
        self, code: str, message: str | None = None, *, headers: Mapping[str, str] | None = None, **fields: str
    ) -> None:
        self.status, default = CATALOGUE[code]
        self.code = code
        self.message = message or default
        self.fields: dict[str, str] = fields
        self.headers: dict[str, str] = dict(headers or {})
        super().__init__(f"{code}: {self.message}")


# The S3 code of each class of transom.target.errors, by the class's name; its message is public and passed on.
_FROM_TARGET: Mapping[str, str] = MappingProxyType(
    {
        "NoSuchBucket": "NoSuchBucket",
        "NoSuchKey": "NoSuchKey",
        "NoSuchUpload": "NoSuchUpload",
        "NoSuchVersion": "NoSuchVersion",
        "BucketExists": "BucketAlreadyExists",
        "BucketNotEmpty": "BucketNotEmpty",
        "InvalidPart": "InvalidPart",
        "InvalidPartOrder": "InvalidPartOrder",
        "EntityTooSmall": "EntityTooSmall",
        "PreconditionFailed": "PreconditionFailed",
        "ReadOnlyStore": "MethodNotAllowed",
        "StoreFull": "StorageFull",
        "SourceChanged": "InternalError",
        "NoSuchEtl": "InvalidArgument",
        "EtlArgsInvalid": "InvalidArgument",
        "EtlSkipped": "NoSuchKey",
        "EtlInputRejected": "EtlInputRejected",
        "EtlFailed": "EtlFailed",
        "EtlExited": "EtlExited",
        "EtlCrashed": "EtlCrashed",
        "EtlDisconnected": "EtlDisconnected",
        "EtlOutOfMemory": "EtlOutOfMemory",
        "EtlLimitReached": "EtlLimitReached",
        "EtlOutputTooLarge": "EtlOutputTooLarge",
        "EtlTimeout": "EtlTimeout",
        "EtlUnavailable": "EtlUnavailable",
        "SlowDown": "SlowDown",
        "ResultPreconditionFailed": "PreconditionFailed",
        "NoSuchJob": "InvalidArgument",
        "JobBusy": "OperationAborted",
        "JobRefused": "InvalidArgument",
        "WhereFailed": "InvalidArgument",
    }
)


def from_target(error: Exception) -> S3Error:
    """Turn an error of the target's tree into an S3 one, by the name of its class or nearest known base.

    Anything unknown becomes InternalError and its text stays out: only declared messages are public.
    """
    if isinstance(error, S3Error):
        return error
    for cls in type(error).__mro__:
        code = _FROM_TARGET.get(cls.__name__)
        if code is not None:
            break
    else:
        return S3Error("InternalError")
    message = str(getattr(error, "message", "")) or None
    fields: dict[str, str] = {}
    if condition := str(getattr(error, "condition", "")):
        fields["Condition"] = condition
    if etl := str(getattr(error, "etl", "")):
        fields["Etl"] = etl
    retry_after_s = getattr(error, "retry_after_s", None)
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return S3Error(code, message, headers=headers, **fields)


ERROR_HEADER = "x-transom-error"  # tells code and message where an error has no body: on HEAD


_HEADER_CHARS = 1000  # readers of headers refuse those beyond some KiB, and with one the whole answer


def in_header(error: S3Error) -> str:
    """Return the error as the value of ERROR_HEADER: "Code: message", on one line, a long message cut."""
    message = " ".join(_CONTROL.sub(" ", error.message).split())
    return f"{error.code}: {message}"[:_HEADER_CHARS]


# Granian answers a bare 500 for a header with one of these, and others pass it on to terminals.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def render(error: S3Error, *, resource: str, request_id: str, host_id: str = "") -> bytes:
    """Return the XML document of an error. What XML can't hold is replaced by U+FFFD."""
    elements = {"Code": error.code, "Message": error.message, **error.fields}
    elements["Resource"] = resource
    elements["RequestId"] = request_id
    elements["HostId"] = host_id
    inner = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in elements.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()


def _text(value: str) -> str:
    return escape(_UNPRINTABLE.sub("\ufffd", value), {"\r": "&#13;"})
