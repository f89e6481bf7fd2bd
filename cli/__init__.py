"""The `transom` command, one module a noun. It speaks to a server over its REST and S3 APIs only; `serve` is one."""
