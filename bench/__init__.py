"""`transom bench`: load for any S3 endpoint, and peers to compare with. It knows S3 and REST, no server's insides."""
