"""Wing: pruning methods as generators of architectures."""
