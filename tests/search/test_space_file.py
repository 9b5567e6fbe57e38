from pathlib import Path

import pytest

from prunenas.arch.profile import StageProfile
from prunenas.arch.spec import ArchSpec
from prunenas.errors import (
    BudgetError,
    InputError,
    KeepError,
    OutputExistsError,
    ProfileError,
    RecipeError,
    SpaceError,
    SpecError,
    UnknownNameError,
)
from prunenas.families.base import reference
from prunenas.ir.canonical import digest
from prunenas.search.space_file import RunTable, load_space
from prunenas.training.recipe import Recipe, named_recipe
from tests.search.fakes import profile, target

REFERENCE = 'reference = { family = "lenet5", input_size = [1, 16, 16], classes = 10 }\n'
GUIDE = "guide = { keeps = [0.6, 0.5], head = 0.4 }\n"
MINIMAL = f"schema = 1\n{REFERENCE}{GUIDE}"


@pytest.fixture
def write(tmp_path):
    def written(text: str) -> Path:
        path = tmp_path / "space.toml"
        path.write_text(text)
        return path

    return written


def test_a_minimal_file_has_every_default(write):
    space, run = load_space(write(MINIMAL))
    assert digest(space.target) == digest(target())
    assert dict(space.guide.keeps) == {"stage1": 0.6, "stage2": 0.5, "head": 0.4}
    assert dict(space.intervals)["stage1"] == (0.45, 0.75)
    assert (space.step, space.round_to, space.max_macs, space.max_params) == (0.05, 1, None, None)
    assert space.transferred is None
    assert run == RunTable()
    assert run.resolved_recipe() == Recipe()


def test_every_key_arrives(write):
    space, run = load_space(
        write(
            "schema = 1\n"
            'reference = { family = "resnet", input_size = [1, 16, 16], classes = 7, '
            "width = 0.5, options = { depth = 14 } }\n"
            "guide = { keeps = 0.5, source = 'by hand' }\n"
            "transferred = { keeps = [0.4, 0.5, 0.6] }\n"
            "keep = { radius = 0.2, floor = 0.35, step = 0.01 }\n"
            "round_to = 4\nmax_macs = 900_000\nmax_params = 30_000\n"
            "[run]\ndata = 'shapes'\nrecipe = { name = 'fast', epochs = 3, decay_at = [0.5] }\n"
            "strategy = 'nsga2'\nobjectives = ['accuracy', 'macs']\ntrials = 7\n"
            "confirm_seeds = 2\nfront_size = 4\nseed = 5\n"
        )
    )
    graph = reference("resnet", (1, 16, 16), 7, width=0.5, depth=14)
    assert digest(space.target) == digest(graph)
    assert {*space.guide.keeps.values()} == {0.5}
    assert space.guide.source == "by hand"
    assert space.transferred is not None
    assert [*space.transferred.keeps.values()] == [0.4, 0.5, 0.6]
    assert {*space.intervals.values()} == {(0.35, 0.7)}
    assert (space.step, space.round_to) == (0.01, 4)
    assert (space.max_macs, space.max_params) == (900_000, 30_000)
    assert run.resolved_recipe() == named_recipe("fast", epochs=3, decay_at=(0.5,))
    assert (run.data, run.strategy, run.objectives) == ("shapes", "nsga2", ("accuracy", "macs"))
    assert (run.trials, run.confirm_seeds, run.front_size, run.seed) == (7, 2, 4, 5)


def test_one_keep_stands_for_all_stages_and_the_head_is_told_apart(write):
    space, _ = load_space(write(f"schema = 1\n{REFERENCE}guide = {{ keeps = 0.5 }}\n"))
    assert dict(space.guide.keeps) == {"stage1": 0.5, "stage2": 0.5, "head": 1.0}


@pytest.mark.parametrize("role", ["guide", "transferred"])
def test_a_profile_is_looked_for_beside_the_file_not_in_the_working_folder(
    tmp_path, monkeypatch, role
):
    (tmp_path / "spaces" / "guides").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    profile(0.7, 0.6, 0.5).save(tmp_path / "spaces" / "guides" / "g.json")
    text = f"schema = 1\n{REFERENCE}" + ("" if role == "guide" else GUIDE)
    (tmp_path / "spaces" / "s.toml").write_text(f"{text}{role} = 'guides/g.json'\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    space, _ = load_space("../spaces/s.toml")
    assert dict(getattr(space, role).keeps) == dict(profile(0.7, 0.6, 0.5).keeps)


@pytest.mark.parametrize("role", ["guide", "transferred"])
def test_a_profile_given_in_place_of_the_files_is_seen_from_the_working_folder(
    write, tmp_path, monkeypatch, role
):
    path = write(MINIMAL)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    profile(0.7, 0.6, 0.5).save("g.json")
    space, _ = load_space(path, **{role: "g.json"})
    assert dict(getattr(space, role).keeps) == dict(profile(0.7, 0.6, 0.5).keeps)


def test_budgets_given_in_place_of_the_files_hold(write):
    path = write(f"{MINIMAL}max_macs = 90_000\n")
    assert load_space(path, max_macs=None)[0].max_macs == 90_000
    space, _ = load_space(path, max_macs=80_000, max_params=9_000)
    assert (space.max_macs, space.max_params) == (80_000, 9_000)


def test_the_graph_of_a_spec_can_be_the_target(write, tmp_path):
    graph = target(0.5)
    ArchSpec(name="mine", graph=graph).save(tmp_path / "sub" / "mine.json")
    space, _ = load_space(write(f"schema = 1\nreference = {{ spec = 'sub/mine.json' }}\n{GUIDE}"))
    assert digest(space.target) == digest(graph)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("rond_to = 8", "rond_to"),
        ("keep = { raduis = 0.1 }", "keep.raduis"),
        ("[run]\ntrails = 3", "run.trails"),
        ("[transferred]\nkeeps = 0.5\nsorce = 'x'", r"\n  transferred\.sorce"),
    ],
)
def test_a_misspelt_key_is_named_with_its_path(write, line, path):
    with pytest.raises(SpaceError, match=rf"{path}: unknown key") as caught:
        load_space(write(f"{MINIMAL}{line}\n"))
    assert "space.toml" in str(caught.value)


@pytest.mark.parametrize("key", ["famly", "inputsize"])
def test_a_misspelt_key_of_the_reference_is_named(write, key):
    text = MINIMAL.replace("classes = 10", f"classes = 10, {key} = 1")
    with pytest.raises(SpaceError, match=rf"reference\.{key}: unknown key"):
        load_space(write(text))


def test_all_misspelt_keys_are_told_at_once(write):
    with pytest.raises(SpaceError) as caught:
        load_space(write(f"{MINIMAL}a = 1\nkeep = {{ b = 1 }}\n[run]\nc = 1\n"))
    assert all(path in str(caught.value) for path in ("  a:", "keep.b:", "run.c:"))


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("round_to = 'eight'", "round_to"),
        ("round_to = 8.5", "round_to"),
        ("max_macs = true", "max_macs"),
        ("keep = { step = '0.1' }", r"keep\.step"),
        ("keep = 3", "keep"),
        ("[run]\ntrials = '3'", r"run\.trials"),
        ("[run]\nseed = 1.5", r"run\.seed"),
        ("[run]\nobjectives = ['latency']", r"run\.objectives\.0"),
        ("[run]\nobjectives = 'accuracy'", r"run\.objectives"),
    ],
)
def test_a_wrong_type_is_named_with_its_path(write, line, path):
    with pytest.raises(SpaceError, match=rf"{path}: "):
        load_space(write(f"{MINIMAL}{line}\n"))


@pytest.mark.parametrize("missing", ["schema", "reference", "guide"])
def test_a_missing_key_is_named(write, missing):
    lines = [line for line in MINIMAL.splitlines() if not line.startswith(missing)]
    with pytest.raises(SpaceError, match=f"{missing}: Field required"):
        load_space(write("\n".join(lines)))


def test_a_newer_schema_is_told_before_anything_about_its_keys(write):
    with pytest.raises(SpaceError, match="schema 2, this version reads 1") as caught:
        load_space(write(MINIMAL.replace("schema = 1", "schema = 2") + "new_key = 1\n"))
    assert "new_key" not in str(caught.value)


@pytest.mark.parametrize("schema", ["0", "-1", "'1'", "1.0", "true"])
def test_a_schema_that_never_was_is_refused(write, schema):
    with pytest.raises(SpaceError, match="schema"):
        load_space(write(MINIMAL.replace("schema = 1", f"schema = {schema}")))


@pytest.mark.parametrize("text", ["", "schema = ", "{", "guide = 1979-05-27\n" + MINIMAL, "\0"])
def test_what_is_no_space_is_refused(write, text):
    with pytest.raises(SpaceError, match=r"space\.toml"):
        load_space(write(text))


def test_dates_are_refused(write):
    with pytest.raises(SpaceError, match=r"space\.toml"):
        load_space(write(f"{MINIMAL}max_macs = 1979-05-27\n"))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "space.toml"
    path.write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(SpaceError, match="cannot be read"):
        load_space(path)


@pytest.mark.parametrize("name", ["nowhere.toml", "."])
def test_a_missing_file_or_a_folder_is_refused_by_its_path(tmp_path, name):
    with pytest.raises(SpaceError, match="cannot be read"):
        load_space(tmp_path / name)


@pytest.mark.parametrize(
    "table",
    ["{ }", "{ classes = 10 }", "{ family = 'lenet5', spec = 'x.json' }"],
)
def test_a_reference_is_a_family_or_a_spec_and_not_both_or_neither(write, table):
    with pytest.raises(SpaceError, match="either a family or a spec"):
        load_space(write(f"schema = 1\nreference = {table}\n{GUIDE}"))


@pytest.mark.parametrize("option", ["input_size = [1, 16, 16]", "classes = 10", "width = 0.5"])
def test_a_spec_says_itself_what_the_arguments_of_a_family_would(write, tmp_path, option):
    ArchSpec(name="mine", graph=target()).save(tmp_path / "mine.json")
    with pytest.raises(SpaceError, match=option.split()[0]):
        load_space(write(f"schema = 1\nreference = {{ spec = 'mine.json', {option} }}\n{GUIDE}"))


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        (MINIMAL.replace("lenet5", "lenet6"), UnknownNameError, "known: "),
        (MINIMAL.replace("classes = 10", "options = { depth = 3 }"), InputError, "depth"),
        (MINIMAL.replace("classes = 10", "classes = 0"), InputError, "classes"),
        (MINIMAL.replace("[0.6, 0.5]", "[0.6, 0.5, 0.4]"), SpaceError, r"3 keeps.*2 stages"),
        (MINIMAL.replace("[0.6, 0.5]", "[0.6]"), SpaceError, r"1 keeps.*stage1, stage2"),
        (MINIMAL.replace("0.6", "1.6"), KeepError, "1.6"),
        (MINIMAL.replace("head = 0.4", "head = 0.0"), KeepError, "keep=0"),
        (MINIMAL + "max_macs = 0\n", SpaceError, "max_macs"),
        (MINIMAL + "max_macs = 10\n", BudgetError, "max_macs=10"),
        (MINIMAL + "keep = { radius = 2.0 }\n", SpaceError, "radius"),
        (MINIMAL + "keep = { step = nan }\n", SpaceError, "step"),
        (MINIMAL + "transferred = 'nowhere.json'\n", SpecError, "nowhere.json"),
    ],
)
def test_values_that_do_not_fit_are_told(write, text, error, told):
    with pytest.raises(error, match=told):
        load_space(write(text))


def test_a_guide_of_other_stages_is_refused(write, tmp_path):
    StageProfile(keeps={"stage1": 0.5}).save(tmp_path / "g.json")
    with pytest.raises(ProfileError, match="stage1, stage2, head"):
        load_space(write(f"schema = 1\nguide = 'g.json'\n{REFERENCE}"))


def test_a_profile_of_the_same_place_is_not_overwritten_by_another(tmp_path):
    profile(0.7, 0.6, 0.5).save(tmp_path / "g.json")
    with pytest.raises(OutputExistsError):
        profile(0.7, 0.6, 0.4).save(tmp_path / "g.json")


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("'slow'", r"'slow'.*paper"),
        ("{ name = 'slow' }", r"'slow'.*paper"),
        ("{ epocs = 3 }", r"epocs.*epochs"),
        ("{ epochs = 'x' }", r"run\.recipe(.|\n)*epochs: .*integer"),
        ("{ epochs = 0 }", "epochs=0"),
        ("{ lr = nan }", "lr"),
        ("{ augment = 3 }", "augment"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(write, recipe, told):
    _, run = load_space(write(f"{MINIMAL}[run]\nrecipe = {recipe}\n"))
    with pytest.raises(RecipeError, match=told):
        run.resolved_recipe()


def test_a_misspelt_field_of_the_recipe_is_named_with_its_table(write):
    text = MINIMAL + "[run]\nrecipe = { name = 'fast', epoch = 3 }\n"
    _, run = load_space(write(text))
    with pytest.raises(RecipeError, match=r"run\.recipe: a recipe has no epoch; it has .*epochs"):
        run.resolved_recipe()
