"""prunenas: pruning as architecture search.

The public names are listed in ``__init__.pyi`` and loaded when they are first used, so that
``import prunenas`` costs milliseconds and only what needs torch imports it. Where a verb and a
sub-package share a name (``build``, ``search``, ``export``), the attribute is the verb.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
