"""Chains of versions: content-addressed, hash-linked, in a folder or on S3."""
