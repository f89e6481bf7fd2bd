"""Where the bytes rest: the store interface, the local and the folder store. Knows nothing of S3, HTTP or ETLs."""
