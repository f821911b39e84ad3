"""A complex-valued network that learns option prices: another task of the training core."""
