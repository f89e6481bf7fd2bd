"""For programs that use a Transom server: the admin client, and ETLs on stock boto3 clients.

It speaks the REST and S3 APIs and imports nothing of the server.
"""
