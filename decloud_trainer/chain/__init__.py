"""Everything Solana: bytes, keys, endpoints, transactions."""
