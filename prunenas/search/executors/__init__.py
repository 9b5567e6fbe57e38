"""Wing: where the worker loop of a search runs."""
