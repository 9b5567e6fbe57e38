"""Several processes do one training as one process does that accumulates the same parts."""

import copy
import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from prunenas.arch.metrics import Seeds
from prunenas.build.initialise import build
from prunenas.errors import InputError, RecipeError
from prunenas.training.batches.base import Cuts, ResidentBatches
from prunenas.training.execution.distributed import SOLO, Team, current_team, joined
from prunenas.training.execution.engine import Engine
from prunenas.training.execution.evaluate import evaluate
from prunenas.training.execution.steps import EagerSteps, optimizer_of
from prunenas.training.loop import train
from prunenas.training.recipe import Recipe
from tests.training import team
from tests.training.networks import every_kernel, linear, made, small

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
WAYS = {"plain": (team.plain, 1), "held_out": (team.held_out, 1), "masked": (team.masked, 2)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found, each."""
    return team.two_processes(team.work, tmp_path_factory.mktemp("team"))


@contextmanager
def norms_of_first(parts, own):
    """Let batch norms keep what they see of the first ``own`` parts of every batch only.

    That is what the first process sees. Weights do not depend on it.
    """
    forward, calls = nn.BatchNorm2d.forward, {}

    def seeing(self, x):
        if not self.training:
            return forward(self, x)
        place = calls[id(self)] = calls.get(id(self), -1) + 1
        kept = {name: self._buffers[name] for name in STATISTICS}
        if place % parts >= own:
            self._buffers |= {name: value.clone() for name, value in kept.items()}
        result = forward(self, x)
        self._buffers |= kept
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, "forward", seeing)
        yield


def alone(way):
    """Return what one process finds that accumulates the parts of two."""
    work, parts = WAYS[way]
    with norms_of_first(2 * parts, parts):
        return work(2 * parts)


def distance(one, other):
    """Return the largest difference of two states."""
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_end_where_one_does_that_accumulates_their_parts(both, way):
    """Odd batches, augmentation, weight decay, masks, a sparse phase and hooks included."""
    found, expected = both[0][way], alone(way)
    tolerance = 1e-6 if way != "masked" else 1e-5
    assert found["losses"] == pytest.approx(expected["losses"], abs=tolerance)
    assert_close(found["state"], expected["state"], atol=tolerance, rtol=tolerance)
    assert found["reached"] == pytest.approx(expected["reached"], abs=1e-5)
    assert found["best"] == expected["best"]


def test_a_batch_of_odd_size_weighted_as_if_it_were_whole_would_be_seen(both, monkeypatch):
    monkeypatch.setattr(Cuts, "images", lambda cuts, step: cuts.batch)
    wrong = alone("plain")
    assert distance(both[0]["plain"]["state"], wrong["state"]) > 1e-3


@pytest.mark.parametrize("way", WAYS)
def test_all_processes_end_alike_and_only_the_first_tells_of_epochs(both, way):
    first, second = (found[way] for found in both)
    assert distance(first["state"], second["state"]) == 0
    assert first["reached"] == second["reached"]
    assert len(first["losses"]) == 2
    assert second["losses"] == []


def test_the_images_judged_by_are_shared_out_and_none_is_missing(both):
    network = build(small(team.SIZE, 4, widths=(8, 8, 8)))
    network.load_state_dict(both[0]["plain"]["state"])
    judged = evaluate(network, team.images(), team.images().part("test"))
    assert both[0]["plain"]["reached"] == pytest.approx([judged.accuracy, judged.loss], abs=1e-6)


def test_masks_and_the_sparse_phase_hold(both):
    network = build(team.masked_graph(), seed=1)
    state = both[0]["masked"]["state"]
    for name in ("conv0", "conv1", "conv2"):
        weight, mask = state[f"{name}.weight"], network.node(name).mask
        assert not weight[mask == 0].any()
        assert int(weight.count_nonzero()) == round(0.5 * int(mask.count_nonzero()))


def test_how_many_processes_there_were_is_told(both):
    words = both[0]["masked"]["words"]
    assert "2 processes, 4 parts a batch; 2 x " in words


def test_a_stop_in_one_process_stops_all_and_they_go_on_to_the_same_bits(both):
    for found in (both[0]["interrupted"], both[1]["interrupted"]):
        assert found["told"].startswith("StoppedError: stopped at epoch 1, batch 20 of 25; ")
        assert distance(found["again"]["state"], found["unbroken"]["state"]) == 0
        assert found["again"]["losses"] == found["unbroken"]["losses"]
        assert found["files"] == [".json", ".safetensors"]


def test_each_process_draws_for_its_layers_from_a_stream_of_its_own(both):
    assert not torch.equal(both[0]["draws"], both[1]["draws"])
    torch.default_generator.manual_seed(0)
    assert torch.equal(both[0]["draws"], torch.get_rng_state())


@pytest.mark.parametrize(
    ("quarrel", "words"),
    [
        ("wild", "DivergenceError: the loss of the network"),
        ("seeds", r"other than process 0 have: seeds \(process 1\)"),
        ("drift", "the weights of process 1 have drifted away"),
    ],
)
def test_what_cannot_be_one_training_ends_in_all_processes_alike(both, quarrel, words):
    messages = [found["quarrels"][quarrel] for found in both]
    assert messages[0] == messages[1]
    with pytest.raises(RuntimeError, match=words):
        raise RuntimeError(messages[0])


def test_an_error_of_one_process_ends_the_other_without_a_second_message(both):
    assert both[1]["abandoned"] == "DataError: the image 7.png is damaged"
    assert both[0]["abandoned"].startswith("PeerError: ")


def test_the_command_line_trains_one_network_and_only_the_first_process_speaks(both):
    (code, out, _), silent = both[0]["train"], both[1]["train"]
    told = json.loads(out)
    assert code == 0 and told["execution"].endswith("2 processes, 2 parts a batch")
    assert silent == (0, "", "")
    code, out, _ = both[0]["again"]
    assert code == 0 and "found in runs/vgg11-" in out
    assert both[1]["again"] == (0, "", "")


def test_a_wrong_command_is_told_once(both):
    answers = [found["unknown"] for found in both]
    assert {code for code, _, _ in answers} <= {1, 2}
    (words,) = [err for _, _, err in answers if err]
    assert words.startswith("error: unknown family 'nosuchnet'")


def test_other_verbs_refuse_several_processes_and_one_says_so(both):
    assert both[0]["search"][0] == both[1]["search"][0] == 2
    assert "only prunenas train does its work in several" in both[0]["search"][2]
    assert both[1]["search"][1:] == ("", "")


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("images", [12, 13, 17])
def test_the_mean_of_the_ranks_gradients_is_that_of_the_whole_batch(images, parts):
    data = made(images, 4)
    recipe = Recipe(epochs=1, batch=images, label_smoothing=0.1)
    seeds = Seeds(order=0, augmentation=0, layers=0)
    network = build(linear(), seed=0)

    def done(team, parts):
        cut = {"share": team.share, "parts": parts}
        batches = ResidentBatches(data, data.part("train"), recipe, seeds, **cut)
        optimizer = optimizer_of(network, recipe)
        steps = EagerSteps(network, optimizer, batches, recipe, parts=parts, team=team)
        (draw,) = batches.draws(1)
        loss = steps.gradients(draw, batches.images(0))
        return loss, network.weight("fc"), network.node("fc").weight.grad.clone()

    whole, _, wanted = done(SOLO, 1)
    shares = [done(Team(rank=rank, size=3), parts) for rank in range(3)]
    assert_close(torch.stack([loss for loss, _, _ in shares]).sum(), whole)
    assert_close(torch.stack([grad for _, _, grad in shares]).mean(dim=0), wanted)


def test_a_process_by_itself_is_a_team_of_one():
    tensor = torch.arange(3)
    assert current_team() == SOLO == Team(rank=0, size=1)
    assert SOLO.leads and SOLO.share == (0, 1)
    assert SOLO.add(tensor) is tensor and SOLO.gather(tensor) == [tensor]
    assert SOLO.any(True, False) == [True, False]
    assert SOLO.own_seed(7) == 7 and SOLO.own_name("random") == "random"
    with joined("cpu") as (found, device):
        assert (found, device) == (SOLO, "cpu")


@pytest.mark.parametrize(("rank", "size"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_outside_of_its_team_is_refused(rank, size):
    with pytest.raises(InputError, match=f"a team of {size} has no process {rank}"):
        Team(rank=rank, size=size)


def test_an_environment_that_torchrun_did_not_make_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"RANK, LOCAL_RANK, .* is not set"), joined("cpu"):
        pass


@pytest.mark.parametrize(
    ("device", "words"),
    [("cuda", "process 99 of this machine has no device"), ("cuda:1", "say cuda, not cuda:1")],
)
def test_a_device_that_a_process_cannot_have_is_refused(monkeypatch, device, words):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "99")
    with pytest.raises(InputError, match=words), joined(device):
        pass


def test_a_network_with_synchronised_norms_is_the_same_tensors():
    network = build(small(team.SIZE, 4), seed=0)
    twin = network.with_synchronised_norms()
    kinds = [type(twin.node(f"bn{i}")) for i in range(3)]
    assert kinds == [nn.SyncBatchNorm] * 3
    assert type(network.node("bn0")) is nn.BatchNorm2d
    for name, tensor in network.state_dict(keep_vars=True).items():
        assert twin.state_dict(keep_vars=True)[name] is tensor
    images = torch.randn(4, *team.SIZE)
    # Alone there is nobody to ask, so a CPU can do it.
    assert_close(twin.train()(images), copy.deepcopy(network).train()(images))
    assert int(network.node("bn0").num_batches_tracked) == 1


def test_synchronised_norms_on_a_cpu_are_refused_before_training():
    network = build(every_kernel())
    before = copy.deepcopy(network.state_dict())
    data = made(size=(2, 4, 4))
    with pytest.raises(RecipeError, match="for CUDA only; this training is on cpu"):
        train(network, data, Recipe(epochs=1), engine=Engine(sync_norms=True))
    assert distance(before, network.state_dict()) == 0


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device for each process")
def test_synchronised_norms_see_the_whole_batch(tmp_path):
    """Two devices do what one does with whole batches, statistics included."""
    found = team.two_processes(team.synchronised, tmp_path)[0]
    expected = team.trained(
        build(small(team.SIZE, 4, widths=(8, 8, 8)), seed=1, device="cuda"),
        team.images(),
        replace(team.RECIPE, precision="fp32"),
        Engine(capture=False, deterministic=True),
    )
    assert found["losses"] == pytest.approx(expected["losses"], abs=1e-4)
    state = {name: tensor.cpu() for name, tensor in expected["state"].items()}
    assert_close(found["state"], state, atol=1e-3, rtol=1e-3)
    assert "synchronised norms" in found["words"]
