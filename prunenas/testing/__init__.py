"""Suites of promises that a plug-in of any package inherits; they need pytest.

``generators.GeneratorContract`` is the one of pruning methods, ``networks`` what it runs on.
"""

import pytest

# Said before the suites are imported, so that their assertions tell the values that differ.
pytest.register_assert_rewrite("prunenas.testing.generators")
