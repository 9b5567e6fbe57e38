"""What selections lose with their source, also those that choose from other selections."""

from prunenas.generators.base.norms import removed_channels
from prunenas.ir.coupling import couple
from prunenas.ir.ops import Select
from prunenas.ir.writer import GraphWriter


def test_a_selection_of_a_selection_loses_what_its_sources_source_lost():
    net = GraphWriter((3, 8, 8))
    x = net.conv("stem", net.input, 6, kernel=3)
    x = net.add("first", Select(indices=(0, 1, 3, 5)), x)
    x = net.add("second", Select(indices=(1, 2)), x)
    graph = net.finish(net.linear("fc", net.global_pool("pool", x), 5))
    gone = removed_channels(couple(graph), graph, {"stem": (0, 2, 3, 4, 5)})
    assert gone == {"stem": (1,), "first": (1,), "second": (0,)}
