"""What a workload costs, and what limits it."""
