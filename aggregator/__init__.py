"""Many small S3 objects become few large gzip bundles: nothing lost, nothing twice."""
