"""What every pruning method is, and what several of them use.

``method`` says what one is, ``verb`` calls it, ``fit`` brings what it proposes under the graph's
rules, ``about`` tells of it. Of what is read: ``scores``, ``norms`` and ``weights`` are about
kernels, ``scales`` and ``factors`` about what multiplies channels, ``readers`` and ``responses``
about the layers behind, ``gradients`` about the loss.
"""

from prunenas.generators.base.method import (
    GENERATORS,
    Generator,
    LooksAt,
    Proposal,
    Subject,
    is_amount,
    is_fraction,
    make_generator,
    need,
)
from prunenas.generators.base.verb import Pruned, generate, prune

__all__ = [
    "GENERATORS",
    "Generator",
    "LooksAt",
    "Proposal",
    "Pruned",
    "Subject",
    "generate",
    "is_amount",
    "is_fraction",
    "make_generator",
    "need",
    "prune",
]
