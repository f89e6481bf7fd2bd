"""Transom: an S3-compatible gateway that transforms objects on GET, next to where they are stored."""

__version__ = "0.1.0"
