"""How datasets are spelled."""

from __future__ import annotations

# Written by people, by Anchor's JavaScript client and by the kits: FashionMnist, fashionMnist,
# fashion-mnist, fashion_mnist, fashionmnist. All are one key.
_DROPPED = str.maketrans("", "", "_- ")


def dataset_key(name: str) -> str:
    """The one spelling that we compare and store: lower case without separators."""
    return name.translate(_DROPPED).lower()
