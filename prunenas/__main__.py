"""The command line by ``python -m prunenas``, which is how torchrun starts it."""

from prunenas.cli import main

main()
