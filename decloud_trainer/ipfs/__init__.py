"""Content by its hash: computing and checking CIDs, fetching, pinning."""
