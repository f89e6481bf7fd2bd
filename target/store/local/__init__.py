"""The embedded store: an SQLite index and blob files in one data folder, shared by several processes."""

from __future__ import annotations

from transom.target.store.local.store import LocalStore

__all__ = ["LocalStore"]
