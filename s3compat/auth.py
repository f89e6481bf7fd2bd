"""One way in for every signature scheme: which of them a request uses, and who signed it.

It knows no credentials of its own: the caller looks secrets up. Authorisation is not decided here.
"""

from __future__ import annotations

from transom.s3compat import sigv2, sigv4
from transom.s3compat.addressing import Address
from transom.s3compat.errors import S3Error
from transom.s3compat.identity import ChunkSigner, Identity, Scheme, SecretOf
from transom.s3compat.request import HttpRequest

__all__ = ["ANONYMOUS", "ChunkSigner", "Identity", "Scheme", "SecretOf", "authenticate"]

ANONYMOUS = Identity(access_key="", scheme="anonymous")


def authenticate(request: HttpRequest, secret_of: SecretOf, now: float, *, address: Address) -> Identity:
    """Return who signed the request; without any credentials, the anonymous identity.

    `now` is in epoch seconds. Raises the S3Error of whatever is wrong with the signature.
    """
    authorization = request.headers.get("authorization")
    if request.query_string:
        in_query = _scheme_in_query(request)
        if in_query and authorization:
            raise S3Error(
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
                "Signature query string parameter or the Authorization header should be specified",
                ArgumentName="Authorization",
                ArgumentValue=authorization,
            )
        if in_query == "v4-query":
            return sigv4.verify_query(request, secret_of, now)
        if in_query == "v2-query":
            return sigv2.verify_query(request, secret_of, now, address)
    if not authorization:
        return _anonymous(request)
    if authorization.startswith(sigv4.ALGORITHM):
        return sigv4.verify_header(request, authorization, secret_of, now)
    raise _unsupported(authorization)


def _scheme_in_query(request: HttpRequest) -> Scheme | None:
    given = request.query.first
    if "X-Amz-Algorithm" in given or "X-Amz-Signature" in given or "X-Amz-Credential" in given:
        return "v4-query"
    if "AWSAccessKeyId" in given or ("Signature" in given and "Expires" in given):
        return "v2-query"
    return None


def _anonymous(request: HttpRequest) -> Identity:
    payload = request.headers.get("x-amz-content-sha256", "")
    if not payload:
        return ANONYMOUS
    return Identity(access_key="", scheme="anonymous", payload=sigv4.checked_payload(payload))


def _unsupported(authorization: str) -> S3Error:
    if authorization.startswith("AWS "):
        return S3Error(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )
    return S3Error(
        "InvalidArgument", "Unsupported Authorization Type", ArgumentName="Authorization", ArgumentValue=authorization
    )
