"""Third floor: recipes and the one training loop."""
