"""Datasets: recognised, fetched, decoded once, and read by whoever trains."""
