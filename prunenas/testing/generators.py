"""What every pruning method promises, as a suite of tests that each method inherits."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from prunenas.arch.descriptor import Descriptor, apply
from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec, load
from prunenas.build.initialise import build
from prunenas.data.base import ImageData
from prunenas.errors import BudgetError, DataError, DescriptorError, KeepError, MethodError
from prunenas.generators.base import GENERATORS, Generator, make_generator, prune
from prunenas.generators.base.about import about
from prunenas.ir.blocks import blocks
from prunenas.ir.canonical import digest, encode
from prunenas.ir.cost import nonzero_params, params
from prunenas.ir.coupling import couple, in_parts, recut
from prunenas.ir.graph import Graph
from prunenas.testing.looking import Looking
from prunenas.testing.networks import random_images, tiny, trained
from prunenas.testing.untouched import States, Untouched


class GeneratorContract(Looking):
    """The promises of a pruning method; a subclass says which.

    Set what differs and let pytest collect the subclass: its name begins with ``Test``. What a
    method gives is computed once for each graph and keep, so promises cost little.

    Attributes:
        method: The name it is registered under.
        options: Its options, for all of these tests.
        graphs: The references, made when they are used, by name.
        keeps: Ascending; left out where the options say how much is kept.
        recipe: How methods train here: hardly at all.

    Example:
        >>> class TestByIndex(GeneratorContract):
        ...     method = "by_index"
    """

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run what takes a ``name`` on every graph."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", self.graph_names())

    def test_it_says_what_it_does_what_each_option_means_and_where_it_is_from(self) -> None:
        """The help and the documents are made of this."""
        told = about(self.method)
        assert told.summary
        assert told.source
        assert not [option.name for option in told.options if not option.meaning]

    def test_it_is_a_value_that_is_its_options(self) -> None:
        """Two with the same options are equal; none can be changed."""
        first = self.generator()
        assert first == self.generator()
        assert hash(first) == hash(self.generator())
        for field in fields(first):
            with pytest.raises(AttributeError):
                setattr(first, field.name, None)

    def test_the_descriptor_applies_and_the_network_runs(self, name: str) -> None:
        """What it gives is an architecture, dropped blocks and masks included."""
        graph, _ = self.subject(name)
        for keep in self.asked():
            network = build(apply(graph, self.found(name, keep))).eval()
            assert network(torch.zeros(2, *graph.input_size)).shape == (2, graph.classes)

    def test_widths_obey_divisors_and_bounds_and_fixed_groups_stay(self, name: str) -> None:
        """No group is empty, and none is wider than its reference."""
        graph, _ = self.subject(name)
        for keep in self.asked():
            groups = recut(graph, self.found(name, keep).part_counts)
            widths = _every_width(graph, self.found(name, keep))
            assert widths.keys() == groups.widths.keys()
            for group in groups:
                if group.fixed is not None:
                    assert widths[group.name] == group.width
                assert 1 <= widths[group.name] <= group.width
                assert widths[group.name] % group.divisor == 0
            assert all(bound.excess(widths) <= 0 for bound in groups.bounds)

    def test_the_origin_says_what_was_asked_and_what_was_reached(self, name: str) -> None:
        """Reached is kept / full of what the method counts, counted here on what was built."""
        graph, _ = self.subject(name)
        count = {
            "channels": _channels,
            "weights": _weights,
            "blocks": _blocks,
            "parts": _parts,
        }
        for keep in self.asked():
            found = self.found(name, keep)
            kept, full = count[self.generator().counts](graph, found)
            assert full > 0
            assert found.origin is not None
            assert found.origin.reached == pytest.approx(kept / full, rel=1e-12)
            assert (found.origin.method, found.origin.keep) == (self.method, keep)
            told = {f.name: encode(getattr(self.generator(), f.name)) for f in fields(self._kind())}
            assert told.items() <= dict(found.origin.options).items()

    def test_a_method_that_counts_weights_masks_them_and_leaves_widths_alone(
        self, name: str
    ) -> None:
        """Masks have their kernels' shapes, and fewer parameters are left than there are."""
        if self.generator().counts != "weights":
            pytest.skip("it counts something else")
        graph, _ = self.subject(name)
        shapes = graph.parameters()
        for keep in self.asked():
            found = self.found(name, keep)
            assert not found.widths
            assert not found.dropped
            assert found.masks or found.densities
            assert all(shapes[f"{n}.weight"] == mask.shape for n, mask in found.masks.items())
            small = apply(graph, found)
            assert params(small) == params(graph)
            assert 0 < nonzero_params(small) < params(small)

    def test_a_larger_keep_keeps_at_least_as_much(self, name: str) -> None:
        """And what is reached follows what is asked."""
        if None in self.asked():
            pytest.skip("it takes no keep")
        origins = [self.found(name, keep).origin for keep in self.asked()]
        reached = [origin.reached for origin in origins if origin and origin.reached is not None]
        assert len(reached) == len(self.keeps)
        assert reached == sorted(reached)
        if self.generator().counts != "blocks":
            assert reached[0] < reached[-1]

    def test_the_same_seed_gives_the_same_descriptor_whatever_the_test_images(
        self, name: str
    ) -> None:
        """Neither a second look nor another test set changes a bit."""
        graph, network = self.subject(name)
        data = random_images(graph)
        spoilt = replace(data, test_images=255 - data.test_images)
        spoilt_or_none = spoilt if self.needs_images() else None
        again = self.look(graph, network, keep=self.middle(), data=spoilt_or_none).descriptor
        first = self.found(name, self.middle())
        assert first == again
        assert first.origin == again.origin
        assert first.origin is not None
        assert first.seed == first.origin.options["seed"] == 0

    def test_what_it_found_is_told_well_enough_to_inherit_weights(self, name: str) -> None:
        """A method that looks at weights tells which stay, or else tells widths alone."""
        graph, _ = self.subject(name)
        pruned = self.pruned(name, self.middle())
        found = pruned.descriptor
        if pruned.reference is None and pruned.refit is None:
            with pytest.raises(MethodError, match="looked at no weights"):
                pruned.network()
        elif {*found.widths} == {*found.selections}:
            with pytest.MonkeyPatch.context() as quiet:
                quiet.setattr("warnings.warn", lambda *_, **__: None)
                small = pruned.network()
            assert digest(small.graph) == digest(apply(graph, found))
            for layer, mask in found.masks.items():
                assert not small.weight(layer)[torch.from_numpy(~mask.array())].any()
        else:
            assert self.generator().looks_at in ("graph", "own")
            with pytest.raises(DescriptorError, match="the kept channels are told"):
                pruned.network()

    def test_looking_changes_neither_network_nor_images_nor_random_states(self, name: str) -> None:
        """Parameters, buffers, gradients, modes, hooks and modules are the caller's own."""
        graph = self.graphs[name]()
        network, data = trained(graph), random_images(graph)
        # Both modes at once: each module must be given back in its own.
        for i, module in enumerate(network.modules()):
            module.training = i % 2 == 0
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 7.0)
        before, images, states = Untouched.of(network), _bits(data), States.now()
        self.look(graph, network, keep=self.middle(), data=data if self.needs_images() else None)
        States.now().same_as(states)
        Untouched.of(network).same_as(before)
        assert all(map(torch.equal, _bits(data), images))

    def test_keeping_all_is_the_identity_and_needs_neither_network_nor_data(
        self, name: str
    ) -> None:
        """A keep of 1 trains nothing."""
        graph, _ = self.subject(name)
        if self.generator().says_how_much:
            pytest.skip("it takes no keep")
        pruned = prune(self.method, graph, keep=1, **self.options)
        assert apply(graph, pruned.descriptor) == graph
        assert pruned.descriptor == Descriptor(reference=digest(graph))
        assert pruned.descriptor.origin is not None
        assert pruned.descriptor.origin.reached == 1
        assert pruned.reference is None

    def test_a_tiny_keep_leaves_something_everywhere_or_is_refused_with_the_least(
        self, name: str
    ) -> None:
        """Groups and layers that would be empty keep their best, and are listed."""
        graph, network = self.subject(name)
        if self.generator().says_how_much:
            pytest.skip("it takes no keep")
        try:
            found = self.look(graph, network, keep=1e-4).descriptor
        except BudgetError as refusal:
            assert "the smallest network keeps" in str(refusal)
            return
        assert all(width >= 1 for width in _every_width(graph, found).values())
        assert all(mask.kept >= 1 for mask in found.masks.values())
        assert found.origin is not None
        known = {group.name for group in couple(graph).free} | {n.name for n in graph.nodes}
        assert {*found.origin.kept_best} <= known
        build(apply(graph, found)).eval()(torch.zeros(1, *graph.input_size))

    def test_the_result_amounts_to_a_profile_of_the_graph(self, name: str) -> None:
        """What it found can be carried over to another graph."""
        graph, _ = self.subject(name)
        profile = StageProfile.of(graph, self.found(name, self.middle()))
        profile.check(graph)
        assert all(0 < keep <= 1 for keep in profile.keeps.values())
        assert self.method in profile.source
        if self.generator().counts == "channels":
            assert min(profile.keeps.values()) < 1
        if self.generator().counts == "weights":
            assert profile.is_sparse

    def test_the_result_survives_a_spec_on_disk(self, name: str, tmp_path: Any) -> None:
        """What it measured is JSON, and masks come back to the bit."""
        graph, _ = self.subject(name)
        found = self.found(name, self.middle())
        spec = ArchSpec.of(graph, found, name="pruned")
        again = load(spec.save(tmp_path / "pruned.json"))
        assert again == spec
        assert again.descriptor is not None
        assert again.descriptor.origin == found.origin
        assert again.graph == apply(graph, found)
        for layer, mask in found.masks.items():
            assert np.array_equal(again.descriptor.masks[layer].array(), mask.array())

    def test_every_choice_of_an_option_works_or_is_refused_with_a_reason(self) -> None:
        """Choices that do not go together, or not with a graph, say so."""
        graph = self.first()
        network = trained(graph)
        for option, choice in _choices(self._kind(), self.options):
            chosen = {option: choice}
            try:
                kind = make_generator(self.method, **dict(self.options) | chosen)
                keep = None if kind.says_how_much else 0.5
                found = self.look(graph, network, keep=keep, choices=chosen).descriptor
            except MethodError as refusal:
                assert option in str(refusal) or str(choice) in str(refusal)
            else:
                build(apply(graph, found))
                assert found.origin is not None
                assert found.origin.options[option] == encode(choice)

    def test_an_unknown_option_is_refused_with_those_that_exist(self) -> None:
        """Before anything else is looked at."""
        with pytest.raises(MethodError, match="has no option colour") as refusal:
            prune(self.method, self.first(), keep=0.5, colour="red")
        known = [field.name for field in fields(self._kind())] or ["none"]
        assert all(option in str(refusal.value) for option in known)

    @pytest.mark.parametrize("keep", [0, -1, 1.5, float("nan"), float("inf")])
    def test_a_keep_that_is_no_fraction_is_refused(self, keep: float) -> None:
        """Also where the method takes none."""
        with pytest.raises(KeepError, match="fraction in"):
            prune(self.method, self.first(), keep=keep, **self.options)

    def test_a_keep_is_needed_or_said_by_an_option_and_never_both(self) -> None:
        """Nothing is assumed where nobody says how much."""
        option = self.generator().says_how_much
        keep = None if option is None else 0.5
        with pytest.raises(KeepError, match=option or "needs keep"):
            prune(self.method, self.first(), keep=keep, **self.options)

    def test_a_network_of_another_graph_is_refused_with_both_digests(self) -> None:
        """Weights of something else would be read by name."""
        graph, other = self.first(), tiny(free=True)
        with pytest.raises(MethodError) as refusal:
            self.look(graph, build(other), keep=self.middle())
        assert digest(graph) in str(refusal.value)
        assert digest(other) in str(refusal.value)

    def test_a_graph_without_free_groups_is_refused_where_channels_are_counted(self) -> None:
        """The message says what fixes them."""
        if self.generator().counts != "channels":
            pytest.skip("it counts something else")
        graph = tiny(free=False)
        with pytest.raises(MethodError, match="network output"):
            self.look(graph, build(graph), keep=self.middle())

    def test_what_it_looks_at_is_asked_for(self) -> None:
        """A trained network or data to train on, and images."""
        graph, kind = self.first(), self.generator()
        ask = {"keep": self.middle(), "recipe": self.recipe} | dict(self.options)
        if kind.looks_at == "trained":
            with pytest.raises(MethodError, match="give it data, or a trained network"):
                prune(self.method, graph, **ask)
        if self.needs_images():
            with pytest.raises(MethodError, match="give it data"):
                prune(self.method, graph, network=trained(graph), **ask)

    def test_data_of_another_size_or_number_of_classes_is_refused(self) -> None:
        """The message tells both."""
        kind, graph = self.generator(), self.first()
        if kind.looks_at != "trained" and not self.needs_images():
            pytest.skip("it looks at no data")
        data = random_images(tiny(free=True))
        with pytest.raises(DataError) as refusal:
            self.look(graph, None, keep=self.middle(), data=data)
        assert "[2, 5, 5]" in str(refusal.value)
        assert f"{data.classes} classes, it has {graph.classes}" in str(refusal.value)

    def test_a_method_that_looks_at_the_graph_needs_the_graph_alone(self) -> None:
        """A network that is given makes no difference."""
        if self.generator().looks_at != "graph":
            pytest.skip("it looks at more")
        graph, keep = self.first(), self.middle()
        with_network = self.look(graph, trained(graph), keep=keep, seed=2).descriptor
        assert prune(self.method, graph, keep=keep, seed=2, **self.options).descriptor == (
            with_network
        )

    @classmethod
    def _kind(cls) -> type[Generator]:
        return GENERATORS[cls.method]


def _choices(kind: type[Generator], fixed: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return every value of every option that is a choice, but for those that are ``fixed``."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        values = (False, True) if hint is bool else get_args(hint)
        if field.name not in fixed and (hint is bool or get_origin(hint) is Literal):
            yield from ((field.name, value) for value in values if value != field.default)


def _bits(data: ImageData) -> list[torch.Tensor]:
    parts = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    return [tensor.clone() for tensor in parts]


def _every_width(graph: Graph, found: Descriptor) -> dict[str, int]:
    return couple(graph).widths | dict(found.widths)


def _channels(graph: Graph, found: Descriptor) -> tuple[int, int]:
    """Return kept and all channels, each free group counted once."""
    widths, free = _every_width(graph, found), [g for g in couple(graph) if g.fixed is None]
    return sum(widths[g.name] for g in free), sum(g.width for g in free)


def _weights(graph: Graph, found: Descriptor) -> tuple[int, int]:
    """Return weights that a fresh network has, and all, of the layers that are masked."""
    network = build(apply(graph, found))
    kernels: Iterable[torch.Tensor] = [
        network.weight(n) for n in {**found.masks, **found.densities}
    ]
    return sum(int(k.count_nonzero()) for k in kernels), sum(k.numel() for k in kernels)


def _blocks(graph: Graph, found: Descriptor) -> tuple[int, int]:
    full = len(blocks(graph))
    return full - len(found.dropped), full


def _parts(graph: Graph, found: Descriptor) -> tuple[int, int]:
    """Return kept and all parts of the grouped convolutions that were not left alone."""
    alone = found.origin.found.get("left_alone", {}) if found.origin else {}
    after = apply(graph, found)
    scored = [n for n in graph.nodes if in_parts(n) and n.weights is None and n.name not in alone]
    kept, full = ([getattr(g[n.name].op, "groups", 0) for n in scored] for g in (after, graph))
    return sum(kept), sum(full)
