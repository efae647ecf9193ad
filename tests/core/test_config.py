"""params.yaml: what is accepted, and what is refused with which words."""

import copy
from functools import reduce
from operator import attrgetter, getitem
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from segsemi.core.config import SAUG_OPERATIONS, Params, load_params, load_values, parse_params
from segsemi.core.errors import UserError
from segsemi.core.recipe import budget_of

COMMITTED = Path(__file__).parents[2] / "params.yaml"
REMOVE = "remove this key"


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return load_values(COMMITTED)


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy with dotted keys set, or taken out."""
    values = copy.deepcopy(values)
    for path, value in changes.items():
        *sections, key = path.split(".")
        place = reduce(getitem, sections, values)
        if value is REMOVE:
            del place[key]
        else:
            place[key] = value
    return values


ACCEPTED: list[dict[str, Any]] = [
    {"student.lr": 1},  # a whole number for a real one
    {"split.count": 3},
    {"split.labelled_list": ""},
    {"augment.scale_min": 1.0, "augment.scale_max": 1.0},
    {"rounds": {}},
    {"rounds": {"c": "a", "a": "teacher", "b": "teacher"}},  # a tree, in any order
    {"baselines": {"supervised": "student_2"}},
    {"student.bn": "trainable", "student.batch_labelled": 0},
    {"student.bn": "fixed", "student.batch_pseudo": 0},
    {"student.saug_ops": 30},
    {"student.saug_without": ["hsv", "Channel_shuffle"], "student.saug_replace": False, "student.saug_ops": 15},
    {"student.saug_share": 0.5, "student.batch_labelled": 3},  # none of which is strong
    {"student.saug_share": 0.7, "student.batch_labelled": 0, "student.batch_pseudo": 10},  # 7.000000000000001
    {"machine.device": "cuda:1"},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_accepted(committed: dict[str, Any], changes: dict[str, Any]) -> None:
    params = parse_params(changed(committed, changes))
    for path, value in changes.items():
        assert attrgetter(path)(params) == value


LABELLED, PSEUDO = ("labelled", False, False, False, 4), ("pseudo", True, True, True, 4)
PARTS = [  # changes; name, pseudo, strong, parallel and images of each part
    ({}, [LABELLED, PSEUDO]),
    ({"saug": "none", "batch_pseudo": 8}, [LABELLED, ("pseudo", True, False, True, 8)]),
    ({"saug": "both"}, [("labelled", False, True, False, 4), PSEUDO]),
    (
        {"batch_labelled": 0, "batch_pseudo": 8, "saug_share": 0.75},
        [("pseudo", True, False, False, 2), ("strong pseudo", True, True, True, 6)],
    ),
    (
        {"batch_labelled": 8, "batch_pseudo": 0, "saug_share": 0.5, "saug": "labelled"},
        [LABELLED, ("strong labelled", False, True, True, 4)],
    ),
    ({"saug_share": 0.5}, [LABELLED, ("pseudo", True, False, False, 2), ("strong pseudo", True, True, True, 2)]),
]


@pytest.mark.parametrize(("changes", "parts"), PARTS)
def test_parts_of_a_students_batch(
    committed: dict[str, Any], changes: dict[str, Any], parts: list[tuple[Any, ...]]
) -> None:
    student = parse_params(changed(committed, {f"student.{key}": value for key, value in changes.items()})).student
    assert student.parts == parts


FIXMATCH = {"baselines": {"fixmatch": "student_1"}}
TWO_PIECES = {"student.accumulate": 2, "student.batch_pseudo": 2, "student.bn": "fixed"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    # unknown and missing keys
    ({"student.learning": 0.1}, r"student\.learning: unknown key; known keys: .*\blr\b"),
    ({"student.decoder_lr_facto": 2.0}, r"student\.decoder_lr_facto: unknown key; did you mean decoder_lr_factor\?"),
    ({"studnet": {}}, r"studnet: unknown key; did you mean student\?"),
    ({"student.lr": REMOVE}, r"student\.lr: missing; add it"),
    ({"evaluate": REMOVE}, r"evaluate: missing"),
    # types
    ({"student.lr": "0.01"}, r"student\.lr: .*valid number \(found '0\.01'\)"),
    ({"seed": 1.0}, r"seed: .*valid integer"),
    ({"seed": True}, r"seed: .*valid integer"),
    ({"augment.flip": 1}, r"augment\.flip: .*valid boolean \(found 1\)"),
    ({"model.encoder": None}, r"model\.encoder: .*valid string \(found None\)"),
    ({"evaluate.scales": 1.0}, r"evaluate\.scales: .*valid list"),
    ({"evaluate.scales": [1.0, "2"]}, r"evaluate\.scales\.1: .*valid number \(found '2'\)"),
    ({"student": 3}, r"student: .*(dictionary|instance)"),
    ({"rounds": None}, r"rounds: .*valid dictionary"),
    # values
    ({"seed": -1}, r"seed: .*greater than or equal to 0 \(found -1\)"),
    ({"data.name": "cityscape"}, r"data\.name: .*'synthetic'.*\(found 'cityscape'\)"),
    ({"data.root": "~/camvid"}, r"data\.root: .*write the path in full, without ~.*\(found '~/camvid'\)"),
    ({"data.height": 16}, r"data\.height: .*32"),
    ({"data.root": ""}, r"data\.root: .*at least 1 character \(found nothing\)"),
    ({"data.skip_broken": "yes"}, r"data\.skip_broken: .*valid boolean \(found 'yes'\)"),
    ({"split.count": ""}, r"split\.count: .*valid integer \(found nothing; for no value write null\)"),
    ({"teacher.steps": ""}, r"teacher\.steps: .*valid integer \(found nothing\)"),
    ({"split.fraction": 1.5}, r"split\.fraction: .*less than or equal to 1"),
    ({"model.output_stride": 12}, r"model\.output_stride: .*8, 16 or 32"),
    ({"augment.scale_min": 3.0}, r"augment: scale_min 3\.0 is larger than scale_max 1\.5"),
    ({"teacher.steps": 0}, r"teacher\.steps: .*greater than 0"),
    ({"teacher.batch_size": 1}, r"teacher\.batch_size: .*2"),
    ({"teacher.momentum": 1.0}, r"teacher\.momentum: .*less than 1"),
    ({"student.lr": float("nan")}, r"student\.lr: .*finite"),
    ({"student.lr": 0.0}, r"student\.lr: .*greater than 0"),
    ({"student.weight_decay": -1.0}, r"student\.weight_decay"),
    ({"student.bn": "dsnb"}, r"student\.bn: .*'dsbn' \(found 'dsnb'\)"),
    ({"student.saug_without": ["hvs"]}, r"student\.saug_without\.0: .*'contrast_gamma', .*\(found 'hvs'\)"),
    ({"student.saug_without": list(SAUG_OPERATIONS)}, r"student: saug_without leaves no operation; set saug: none"),
    (
        {"student.saug_without": ["hsv"], "student.saug_replace": False, "student.saug_ops": 17},
        r"student: saug_ops 17 without replacement is more than the 16 operations",
    ),
    ({"teacher.accumulate": 3}, r"teacher: batch_size 8 is no multiple of accumulate 3"),
    ({"teacher.keep": "best", "teacher.val_every": 0}, r"teacher: keep: best needs measurements on val"),
    ({"student.accumulate": 4}, r"student: bn: dsbn needs two parts of at least 2 images"),
    ({"student.batch_labelled": 1}, r"student: bn: dsbn needs"),
    ({"student.targets": "ema"}, r"student: targets: ema needs an average of the weights"),
    ({"student.batch_pseudo": 0}, r"student: bn: dsbn needs"),
    ({"student.saug_share": 0.5, "student.saug": "none"}, r"student: bn: dsbn needs"),
    ({"student.saug_share": 0.0}, r"student\.saug_share: .*greater than 0"),
    ({"student.saug_share": 0.3}, r"student: saug_share 0\.3 of batch_pseudo 4 is no whole number of images"),
    ({"student.saug_share": 1e-9}, r"student: saug_share 1e-09 of batch_pseudo 4 is no whole number"),
    ({"student.saug_share": 0.25, "student.accumulate": 2}, r"student: saug_share 0\.25 .*each of the 2 pieces"),
    (
        {"student.bn": "fixed", "student.batch_labelled": 0, "student.batch_pseudo": 1},
        r"student: batch_labelled \+ batch_pseudo must be at least 2",
    ),
    ({"pseudo_label.scales": []}, r"pseudo_label\.scales: .*at least 1"),
    ({"machine.device": "gpu"}, r"machine\.device: .*cuda.*\(found 'gpu'\)"),
    ({"machine.workers": -1}, r"machine\.workers.*greater than or equal to 0 .*should be 'auto' \(found -1\)"),
    ({"machine.workers": "many"}, r"machine\.workers.*valid integer .*should be 'auto' \(found 'many'\)"),
    ({"evaluate.window": 64, "augment.short_side": 96}, r"evaluate\.window: images are shrunk to augment\.short_side"),
    # the tree of models
    ({"rounds": {"student_1": "techer"}}, r"rounds\.student_1: unknown teacher 'techer'; expected teacher or"),
    ({"rounds": {"a": "b", "b": "a"}}, r"rounds\.a: its chain of teachers never reaches teacher; break the cycle"),
    ({"rounds": {"ok": "teacher", "a": "b", "b": "c", "c": "b"}}, r"rounds\.a: .*break the cycle"),
    ({"rounds": {"teacher": "teacher"}}, r"model name 'teacher' stands twice"),
    ({"rounds": {"final": "teacher"}}, r"model name 'final' stands twice"),
    ({"rounds": {"a/b": "teacher"}}, r"rounds\.a/b\..*: String should match .*\(found 'a/b'\)"),
    ({"rounds": {1: "teacher"}}, r"rounds\.1.*valid string"),
    ({"baselines": {"supervised": "teacher"}}, r"baselines\.supervised: 'teacher' is no key of rounds"),
    ({"baselines": {"student_1": "student_2"}}, r"model name 'student_1' stands twice"),
    # an online method and its switches
    ({**FIXMATCH, "consistency.targets": "student"}, r"baselines\.fixmatch: .*targets student with ema 0\.996"),
    ({**FIXMATCH, "consistency.ema": 0.0}, r"baselines\.fixmatch: .*targets ema with ema 0"),
    ({**FIXMATCH, "consistency.perturb": "complementary"}, r"complementary is of two views"),
    ({**FIXMATCH, "consistency.soft": True}, r"loss ce takes hard targets"),
    ({**FIXMATCH, "student.bn": "fixed", "student.batch_labelled": 0}, r"baselines\.fixmatch: .*at least 1 labelled"),
    (
        {"student.bn": "fixed", "student.init": "pretrained", "student.batch_labelled": 1},
        r"student: bn: fixed needs two parts",
    ),
    (
        {"baselines": {"cutmix_seg": "student_1"}, "student.bn": "trainable", "student.batch_labelled": 1},
        r"at least 2 labelled",
    ),
    ({**FIXMATCH, **TWO_PIECES, "consistency.bn": "separate"}, r"baselines\.fixmatch: .*at least 4 labelled"),
    ({"student.bn": "separate", "student.accumulate": 4}, r"student: bn: separate needs two parts"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[", ".join(case[0]) for case in REFUSED])
def test_refused(committed: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_params(changed(committed, changes), source="my.yaml")
    assert str(error.value).startswith("my.yaml: ")


def test_all_mistakes_are_named_at_once(committed: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        parse_params(changed(committed, {"student.lr": "x", "seed": -1, "evaluate.flip": REMOVE, "data.hight": 3}))
    for key in ("student.lr", "seed", "evaluate.flip: missing", "data.hight: unknown key; did you mean height?"):
        assert key in str(error.value)


@pytest.mark.parametrize("values", [None, [], "text", 3])
def test_something_else_than_a_mapping_is_refused(values: Any) -> None:
    with pytest.raises(UserError, match="the file as a whole"):
        parse_params(values)


def written(folder: Path, old: str, new: str) -> Path:
    text = COMMITTED.read_text()
    assert text.count(old) >= 1
    path = folder / "params.yaml"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize("number", ["1e-05", "1.0e-05", "0.00001", "1E-5"])
def test_small_numbers_as_dvc_writes_them(number: str, tmp_path: Path) -> None:
    assert load_params(written(tmp_path, "lr: 0.01", f"lr: {number}")).teacher.lr == 1e-5


@pytest.mark.parametrize("word", ["yes", "on", "no"])
def test_words_are_not_truth_values(word: str, tmp_path: Path) -> None:
    """YAML 1.2: only true and false are."""
    with pytest.raises(UserError, match=f"found '{word}'"):
        load_params(written(tmp_path, "flip: true", f"flip: {word}"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  encoder: tf", "  encoder: [tf"),
        ("seed: 0", "seed: 0\nseed: 1"),
        ("seed", "seed\x00"),
        ("seed: 0", "seed: !!python/object/apply:os.getcwd []"),
    ],
    ids=["bracket", "twice", "nul", "code"],
)
def test_broken_yaml_and_missing_file(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml is not valid YAML") as error:
        load_params(written(tmp_path, old, new))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"none\.yaml not found: run from the root"):
        load_params(tmp_path / "none.yaml")


def test_params_cannot_be_changed_after_loading() -> None:
    params = load_params(COMMITTED)
    with pytest.raises(ValidationError, match="frozen"):
        params.student.lr = 1.0


@pytest.mark.parametrize(("budget", "supervised"), [("steps", (1400, 12600)), ("images", (1934, 17406))])
def test_budgets_count_the_teachers_and_a_baseline_has_as_much(budget: str, supervised: tuple[int, int]) -> None:
    values = load_values(COMMITTED)
    values["rounds"] = {"student_2": "student_1", "student_1": "teacher", "other": "teacher"}
    values["baselines"], values["baseline_budget"] = {"supervised": "student_2"}, budget
    values["teacher"] |= {"steps": 600, "batch_size": 9}
    values["student"] |= {"steps": 400, "batch_labelled": 5, "batch_pseudo": 10}
    params = parse_params(values)
    found = {name: tuple(budget_of(params, name)) for name in ("teacher", *params.rounds, *params.baselines)}
    students = {"student_1": (1000, 11400), "student_2": (1400, 17400), "other": (1000, 11400)}
    assert found == {"teacher": (600, 5400), **students, "supervised": supervised}


def test_no_key_that_dvcs_run_cache_overlooks() -> None:
    """dvc leaves `size` and `nfiles` out when it looks for an earlier run (treeverse/dvc 10296)."""
    schema = Params.model_json_schema()
    keys = [key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})]
    assert len(keys) > 60 and not {"size", "nfiles"} & set(keys)
