"""First floor: how architectures are described. No torch."""
