"""`aggregator local`: the handler on files, with an embedded AWS."""
