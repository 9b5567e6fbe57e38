"""Wing: reference networks, written in the IR. No torch."""
