"""One thread, and profiles of hypothesis."""

import os

# For layers as small as the tests', threads only wait for one another. Set before torch is
# imported, so that processes started by tests have it too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# The same examples on every run, unless asked for more.
settings.register_profile("default", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("default")
