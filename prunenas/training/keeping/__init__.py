"""What is kept of a run on disk: its folder, its log, and states to go on from."""
