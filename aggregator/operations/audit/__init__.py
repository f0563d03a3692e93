"""What became of objects: derived from buckets and ledger, by code that shares none with the handler."""
