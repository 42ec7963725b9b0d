"""The online path in plain Python: plan, understand, retrieve, rank, summarise."""
