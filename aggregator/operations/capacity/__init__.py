"""Show the cost and the limits of a workload."""
