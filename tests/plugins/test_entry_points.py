"""Plug-ins of other packages: found by entry point, harmless where they fail."""

import subprocess
import sys
import warnings
from importlib.metadata import entry_points

import pytest

from prunenas.errors import PluginError, UnknownNameError
from prunenas.registry import Registry

OURS = """
from toolbox.wing import TOOLS

@TOOLS.register("hammer")
def hammer():
    return "ours"
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A wing with one plug-in of its own, and a folder where packages are installed."""
    wing = tmp_path / "toolbox" / "wing"
    wing.mkdir(parents=True)
    (tmp_path / "toolbox" / "__init__.py").touch()
    (wing / "__init__.py").write_text(
        "from prunenas.registry import Registry\nTOOLS = Registry('tool', 'toolbox.wing')\n"
    )
    (wing / "hammer.py").write_text(OURS)
    monkeypatch.syspath_prepend(tmp_path)
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        del sys.modules[name]


def install(site, package, entries, **modules):
    """Lay a package out as an installer does."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[toolbox.wing]", *lines]))
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)


def tools():
    from toolbox.wing import TOOLS

    return TOOLS


def looked_up(registry):
    """Return the names, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return registry.names(), [str(warning.message) for warning in caught]


def test_an_object_is_filed_under_the_name_of_its_entry_point(site):
    install(site, "more", {"saw": "more:saw"}, more="def saw():\n    return 'theirs'\n")
    assert looked_up(tools()) == (["hammer", "saw"], [])
    assert tools()["saw"]() == "theirs"
    assert tools()["hammer"]() == "ours"


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_module_registers_itself_as_ours_do_and_may_be_imported_before(site, by_hand):
    install(site, "more", {"hamster": "more"}, more=OURS.replace("hammer", "hamster"))
    if by_hand:
        __import__("more")
    assert looked_up(tools()) == (["hammer", "hamster"], [])
    assert tools()["hamster"].__module__ == "more"


def test_an_object_may_register_itself_too(site):
    install(site, "more", {"hamster": "more:hamster"}, more=OURS.replace("hammer", "hamster"))
    assert looked_up(tools()) == (["hammer", "hamster"], [])


def test_what_fails_to_import_harms_no_other_and_says_why_when_asked(site):
    broken = OURS.replace("hammer", "chisel") + "\nimport no_such_library\n"
    install(site, "aaa", {"chisel": "broken:chisel"}, broken=broken)
    install(site, "zzz", {"saw": "more:saw"}, more="saw = 1\n")
    names, warned = looked_up(tools())
    assert names == ["hammer", "saw"]
    (warning,) = warned
    for part in ("tool 'chisel'", "aaa 1.0", "broken:chisel", "no_such_library"):
        assert part in warning
    assert "chisel" not in tools()
    with pytest.raises(PluginError, match="ModuleNotFoundError: No module named 'no_such_library'"):
        tools()["chisel"]
    assert looked_up(tools()) == (["hammer", "saw"], []), "told once"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("more:nothing", "AttributeError"),
        ("more", "the module registers no tool of that name"),
        ("nowhere", "ModuleNotFoundError"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_told(site, value, reason):
    install(site, "more", {"saw": value}, more="saw = 1\n")
    names, (warning,) = looked_up(tools())
    assert names == ["hammer"]
    assert reason in warning
    with pytest.raises(PluginError, match=reason):
        tools()["saw"]


@pytest.mark.parametrize("value", ["more:hammer", "more"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_name_of_ours_is_nobodys_when_another_package_takes_it(site, value, by_hand):
    install(site, "more", {"hammer": value, "saw": "more:saw"}, more="saw = hammer = 1\n")
    if by_hand and ":" in value:
        __import__("more")
    names, (warning,) = looked_up(tools())
    assert names == ["saw"]
    assert "offered twice, by prunenas and by more 1.0" in warning
    with pytest.raises(PluginError, match="offered twice, by prunenas and by more"):
        tools()["hammer"]


def test_a_name_that_two_packages_take_is_nobodys(site):
    for package in ("one", "two", "three"):
        install(site, package, {"saw": f"{package}:saw"}, **{package: "saw = 1\n"})
    names, (warning,) = looked_up(tools())
    assert names == ["hammer"]
    assert "one 1.0" in warning
    assert "two 1.0" in warning


def test_a_module_that_takes_a_name_of_ours_on_the_way_is_refused_and_ours_stays(site):
    install(site, "more", {"saw": "more"}, more=OURS.replace("def hammer", "def saw"))
    names, (warning,) = looked_up(tools())
    assert names == ["hammer"]
    assert "'hammer' is registered twice" in warning
    assert tools()["hammer"]() == "ours"


def test_an_unknown_name_is_still_unknown(site):
    install(site, "more", {"saw": "more:saw"}, more="saw = 1\n")
    with pytest.raises(UnknownNameError, match=r"did you mean 'saw'.*known: hammer, saw"):
        tools()["sow"]


def test_warnings_that_are_errors_leave_a_registry_that_works(site):
    install(site, "more", {"saw": "nowhere"})
    with pytest.raises(UserWarning, match="nowhere"):
        tools().names()
    assert tools().names() == ["hammer"]


def test_every_wing_has_its_entry_points():
    """A wing's registry is all that it takes; none of ours is installed by entry point."""
    from prunenas.data.base import DATASETS
    from prunenas.export.base import EXPORTERS
    from prunenas.families.base import FAMILIES
    from prunenas.generators.base import GENERATORS
    from prunenas.search.strategies.base import STRATEGIES

    for registry in (DATASETS, EXPORTERS, FAMILIES, GENERATORS, STRATEGIES):
        assert isinstance(registry, Registry)
        for entry in entry_points(group=registry.wing):
            assert not entry.value.startswith("prunenas.")


def test_nothing_is_looked_for_before_a_name_is_asked():
    code = (
        "import prunenas.registry; prunenas.registry.entry_points = None\n"
        "import prunenas.generators.base, prunenas.data.base, prunenas.families.base"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
