"""Many small trainings at once, each in a process of its own."""
