"""Every registered method keeps the promises of its contract; none is named here."""

import pytest
import torch

from prunenas.errors import UnknownNameError
from prunenas.generators.base import GENERATORS, generate
from prunenas.testing.generators import GeneratorContract
from prunenas.testing.networks import GRAPHS, trained


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small lose more than they gain by a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# A class for each, made as another package makes one, so that `-k thinet` finds a method's own.
globals().update(
    {
        f"Test_{name}": type(f"Test_{name}", (GeneratorContract,), {"method": name})
        for name in GENERATORS.names()
    }
)


def test_an_unknown_method_is_refused_with_those_that_exist():
    graph = GRAPHS["vgg11"]()
    with pytest.raises(UnknownNameError, match="unknown method 'magic'") as refusal:
        generate("magic", graph, keep=0.5, network=trained(graph))
    assert all(method in str(refusal.value) for method in GENERATORS.names())
