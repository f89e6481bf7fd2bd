"""Running ETLs beside the store: plans, pipelines, results, limits and workers. Knows nothing of S3 or HTTP."""
