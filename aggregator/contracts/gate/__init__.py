"""What checks this checkout and its contracts, and nothing else: it is not in the wheel."""
