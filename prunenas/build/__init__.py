"""Second floor: from a graph to a torch module."""
