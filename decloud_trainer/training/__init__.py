"""The local training core. Only here is torch imported; it knows no rounds and no networks."""
