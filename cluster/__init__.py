"""What gateways and targets share: the cluster map, placement, signed redirects, the catalog and health.

Standard library only; it knows nothing of S3's wire, of stores or of how an ETL runs.
"""
