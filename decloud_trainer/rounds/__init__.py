"""One round's life, from the first sight of it to the reward. Knows ports, not Solana."""
