"""Sorting and resharding: what AIStore's dSort does."""
