"""The S3 protocol as a library: requests in, answers out. No I/O, no web framework, nothing of stores or ETLs."""
