"""What every method says of itself is whole: nothing is named here."""

import pytest

from prunenas.errors import UnknownNameError
from prunenas.generators.base import GENERATORS
from prunenas.generators.base.about import about

every_method = pytest.mark.parametrize("method", GENERATORS.names())


@every_method
def test_a_method_tells_in_a_sentence_and_in_words_what_it_does(method):
    told = about(method)
    assert told.summary.endswith(".")
    assert told.text
    assert told.needs


@every_method
def test_every_option_has_a_meaning_and_a_default(method):
    told = about(method)
    assert [o.name for o in told.options if not (o.meaning and o.default and o.kind)] == []


@every_method
def test_a_method_tells_its_source_unless_it_is_a_control(method):
    told = about(method)
    assert told.source or "control" in (told.summary + told.text).lower()


def test_sources_and_options_are_taken_apart():
    told = about("network_slimming")
    assert told.source.startswith("Liu et al. 2017")
    strength = next(option for option in told.options if option.name == "strength")
    assert (strength.kind, strength.default) == ("float", "0.0001")
    assert "penalty" in strength.meaning
    assert "Source" not in told.text + strength.meaning


def test_an_unknown_method_is_refused():
    with pytest.raises(UnknownNameError, match="unknown method"):
        about("magic")
