"""``generate METHOD --help`` tells of the method, and is told of no other way."""

import io
from dataclasses import fields

import pytest
from rich.console import Console

from prunenas.cli.method_help import print_method
from prunenas.generators.base import GENERATORS


@pytest.mark.parametrize("method", GENERATORS.names())
def test_a_method_tells_its_options_and_its_source(method):
    console = Console(file=io.StringIO(), width=100)
    print_method(method, console)
    told = console.file.getvalue()
    assert all(option.name in told for option in fields(GENERATORS[method]))
    assert "It looks at" in told
    assert "Source:" in told


def test_the_help_of_a_method_tells_the_verbs_options_and_its_own(call):
    told = call("generate network_slimming --help")
    assert told.code == 0
    verbs, ours = told.out.split("METHOD network_slimming\n")
    assert "--keep" in verbs
    assert "strength" in ours


def test_the_method_may_stand_behind_options(call):
    assert "METHOD uniform" in call("generate --keep 0.3 uniform --help").out


def test_without_a_method_the_verb_alone_is_told(call):
    told = call("generate --help")
    assert told.code == 0
    assert "METHOD " not in told.out.replace("METHOD      ", "")


def test_help_for_a_method_that_nobody_knows_is_an_error(call):
    told = call("generate magik --help")
    assert told.code == 2
    assert "unknown method 'magik'" in told.err
