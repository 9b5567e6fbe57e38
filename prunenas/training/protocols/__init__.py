"""The ways to train what pruning found, and their budgets."""
