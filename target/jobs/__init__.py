"""Offline jobs: whole buckets transformed, inspected, sorted and resharded, bucket to bucket."""
