"""The S3 front end: authenticates, authorises, finds the owner, then redirects or relays. It keeps no data.

`transom.gateway.serve` is the composition root; only the command line imports it.
"""
