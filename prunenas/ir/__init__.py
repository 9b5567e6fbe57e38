"""Ground floor: what a network is. No torch."""
