"""Third floor: from a foreign torch module to a graph."""
