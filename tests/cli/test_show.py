"""What ``inspect`` shows of networks under masks."""

import io

import numpy as np
import pytest
from rich.console import Console

from prunenas.arch.descriptor import Descriptor
from prunenas.arch.spec import ArchSpec
from prunenas.cli.resolve import refuse_existing
from prunenas.cli.show import facts, print_facts
from prunenas.errors import OutputExistsError
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from prunenas.ir.ops import ExactMask

DENSE = reference("lenet5")


def spec(**changes) -> ArchSpec:
    return ArchSpec.of(DENSE, Descriptor(reference=digest(DENSE), **changes), name="net")


def shown(what: ArchSpec) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_facts(what, console)
    return console.file.getvalue()


@pytest.fixture
def sparse() -> ArchSpec:
    kept = np.zeros((84, 120), dtype=bool)
    kept[:, :30] = True
    return spec(masks={"fc2": ExactMask.of(kept)})


def test_costs_after_masks_are_facts_of_a_sparse_network(sparse):
    known, dense = facts(sparse), facts(ArchSpec(name="net", graph=DENSE))
    assert (known["params"], known["macs"]) == (dense["params"], dense["macs"])
    gone = 90 * 84
    assert known["nonzero_params"] == known["params"] - gone
    assert known["effective_macs"] == known["macs"] - gone
    assert known["reference"].keys() == {"params", "macs"}


def test_a_dense_network_has_no_such_facts():
    assert facts(spec()).keys().isdisjoint({"nonzero_params", "effective_macs"})
    assert "after masks" not in shown(spec())


def test_people_are_told_shares_too(sparse):
    known = facts(sparse)
    text = shown(sparse)
    assert f"after masks: {known['nonzero_params']:,} nonzero params" in text
    share = known["effective_macs"] / known["macs"]
    assert f"{known['effective_macs']:,} effective MACs ({share:.1%})" in text
    assert "fc2 has an exact mask" in text


def test_a_sparse_reference_tells_its_own_costs_after_masks(sparse):
    told = Descriptor(reference=sparse.digest, densities={"fc1": (0.5,)})
    again = facts(ArchSpec.of(sparse.graph, told, name="again"))
    assert again["reference"]["nonzero_params"] == facts(sparse)["nonzero_params"]
    assert again["nonzero_params"] < facts(sparse)["nonzero_params"]


def test_masks_of_another_spec_are_in_the_way_before_any_work(tmp_path):
    (tmp_path / "net.masks.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=r"net\.masks\.safetensors exists"):
        refuse_existing(tmp_path / "net.json")
    # A plain PyTorch file has its masks inside.
    refuse_existing(tmp_path / "net.py")
