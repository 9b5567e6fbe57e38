"""prunenas: pruning as architecture search."""
