"""What became of objects: told from what lies in buckets and ledger, by code that shares none with the handler."""
