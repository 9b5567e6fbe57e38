"""Wing: ways to write an architecture down."""
