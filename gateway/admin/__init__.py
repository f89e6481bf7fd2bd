"""The management REST under /-/api/v1: ETLs, views, plugins. Signed like S3; only admin keys."""
