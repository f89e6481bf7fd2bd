"""Version ids in a store without versioning: every object is its own null version."""

from __future__ import annotations

import re

from transom.s3compat.errors import S3Error

NULL_VERSION = "null"
_PLAUSIBLE = re.compile(r"[A-Za-z0-9._-]{32,}")


def check_version(version_id: str | None) -> None:
    """Take no version id or "null"; InvalidArgument where it can be none of S3's, else NoSuchVersion."""
    if version_id is None or version_id == NULL_VERSION:
        return
    if _PLAUSIBLE.fullmatch(version_id):
        raise S3Error("NoSuchVersion", VersionId=version_id)
    raise S3Error("InvalidArgument", "Invalid version id specified", ArgumentName="versionId", ArgumentValue=version_id)
