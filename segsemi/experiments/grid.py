"""Declared grids of experiments: the rows and columns of a table, and the params of each cell."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from segsemi.core.config import TEACHER, Params, Section, parse_params, total_steps
from segsemi.core.errors import UserError
from segsemi.core.files import yaml_names
from segsemi.datasets.split import read_list

SUPERVISED = "supervised"  # the name of a model that a grid trains on labels alone beside a student
_FOLDER = resources.files("segsemi.experiments") / "grids"
_BESIDE = ("_classes", "_summary", "_validation")  # endings of CSV files beside a table's own
_LABELLED = {"split.fraction", "split.count", "split.labelled_list"}  # each says which images are labelled


class GridRow(Section):
    """One row of a table.

    Attributes:
        model: the name of the model that is measured.
        rounds: student_1 learns from teacher, student_2 from student_1, and so on, up to this one; 0: the teacher alone.
        baseline: the student beside which a model `supervised` is trained on labels alone for as many steps.
        set: overrides, `section.key=value`; `$section.key` stands for that param of the cell.
    """

    model: str
    rounds: int = Field(default=1, ge=0)
    baseline: str | None = None
    set: list[str] = Field(default_factory=list)


class Grid(Section):
    """A table: every row with every column, for every seed.

    Attributes:
        columns: heading -> overrides.
        common: overrides of all cells.
        against: rows against which the others' gain is given.
        ladder: rows of which each is given its gain on the one before it in this list.
        examples: rows that are shown on images, beside each other; the last is compared with the first.
        lines: whether the figure draws lines along the rows or the columns, which then are steps of one thing; none: dots.
    """

    columns: dict[str, list[str]] = Field(min_length=1)
    rows: dict[str, GridRow] = Field(min_length=1)
    common: list[str] = Field(default_factory=list)
    against: list[str]
    ladder: list[str] = Field(default_factory=list)
    examples: list[str] = Field(default_factory=list)
    lines: Literal["rows", "columns"] | None = None

    @model_validator(mode="after")
    def _known(self) -> Grid:
        for key, names in (("against", self.against), ("ladder", self.ladder), ("examples", self.examples)):
            for row in names:
                if row not in self.rows:
                    raise ValueError(f"{key}: {row!r} is no row")
        if len(set(self.examples)) < min(2, len(self.examples)):
            raise ValueError("examples: name two rows or more, or none")
        return self


@dataclass(frozen=True)
class Cell:
    """One measurement of a table: `model` of the run that `overrides` (as of `dvc exp run -S`) describe.

    `params` are those that the run will have.
    """

    row: str
    column: str
    seed: int
    model: str
    overrides: tuple[str, ...]
    params: Params

    @property
    def learns_from_pseudo_labels(self) -> bool:
        """Whether the model is a student whose batches have some."""
        return self.model in self.params.rounds and self.params.student.batch_pseudo > 0

    @property
    def steps_in_all(self) -> int:
        """Optimizer steps that went into the model, those of its teachers included, if it has anything from them."""
        params = self.params
        student = self.model in params.rounds
        if student and not self.learns_from_pseudo_labels and params.student.init == "pretrained":
            return params.student.steps
        name = params.baselines.get(self.model, self.model)
        return total_steps(params.rounds, name, teacher_steps=params.teacher.steps, student_steps=params.student.steps)


def grid_names() -> list[str]:
    """The grids there are."""
    return yaml_names(_FOLDER)


def read_grid(name: str) -> tuple[Grid, str]:
    """A grid of the package, or of a YAML file of one's own, and the comment in its first line: its title.

    Raises:
        UserError: there is none of that name, or the file is wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no grid {name!r}; there are {', '.join(grid_names())}, or the path of a YAML file like them")
    if Path(name).stem.endswith(_BESIDE):
        raise UserError(f"{path}: a table of that name would have files of another one's; rename the grid")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as that") from None
    try:
        grid = Grid.model_validate(YAML(typ="safe").load(text))
    except YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        wrong = [
            (".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in error.errors()
        ]
        raise UserError(f"{path}: " + "; ".join(f"{key}: {what}" if key else what for key, what in wrong)) from None
    first = text.splitlines()[0]
    return grid, first.lstrip("# ") if first.startswith("#") else Path(name).stem


def cells_of(
    grid: Grid,
    values: dict[str, Any],
    *,
    seeds: Sequence[int],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> list[Cell]:
    """All cells, seed by seed, so that a table is complete for one seed before the next begins.

    Args:
        values: params.yaml.
        columns, rows: headings; none: all.
        extra: overrides of all cells; they win over those that the grid has for all cells.

    Raises:
        UserError: an unknown column or row, an override that params.yaml or dvc does not allow, or one of what the cells
            differ in.
    """
    parse_params(values)
    _check_extra(grid, extra)
    for kind, wanted, known in (("column", columns, grid.columns), ("row", rows, grid.rows)):
        for heading in wanted:
            if heading not in known:
                raise UserError(f"no {kind} {heading!r}; there are {', '.join(map(repr, known))}")
    cells = []
    for seed in dict.fromkeys(seeds):
        for column in dict.fromkeys(columns or grid.columns):
            for name in dict.fromkeys(rows or grid.rows):
                row = grid.rows[name]
                changes = [*_rounds(values, row), *grid.common, *grid.columns[column], *row.set, *extra, f"seed={seed}"]
                overrides = _resolved(changes, values)
                params = parse_params(overridden(values, overrides), source=f"row {name!r}, column {column!r}")
                if row.model not in (TEACHER, *params.rounds, *params.baselines):
                    raise UserError(f"row {name!r} measures {row.model!r}, which its params do not train")
                cells.append(Cell(name, column, seed, row.model, tuple(overrides), params))
    return cells


def _check_extra(grid: Grid, extra: Sequence[str]) -> None:
    varied = {_key(item) for column in grid.columns.values() for item in column}
    varied |= {_key(item) for row in grid.rows.values() for item in row.set}
    if varied & _LABELLED:
        varied |= _LABELLED
    for item in extra:
        key = _key(item)
        if key == "seed":
            raise UserError(f"-S {item}: give the seeds with --seeds")
        if key in varied or key.partition(".")[0] in ("rounds", "baselines"):
            raise UserError(
                f"-S {item}: in {key} the grid's cells differ; for other cells give a grid of your own (docs/experiments.md)"
            )
        _check_grammar(item)


def _check_grammar(item: str) -> None:
    """dvc reads overrides by hydra's grammar, where `a,b` means two runs."""
    from hydra.core.override_parser.overrides_parser import OverridesParser  # slow to import
    from hydra.errors import HydraException

    try:
        (parsed,) = OverridesParser.create().parse_overrides([item])
    except HydraException:
        key, _, value = item.partition("=")
        raise UserError(f"-S {item}: dvc cannot read it; quote the value: -S \"{key}='{value}'\"") from None
    if parsed.is_sweep_override():
        raise UserError(f"-S {item}: one value for each key")
    text = item.partition("=")[2]
    with contextlib.suppress(YAMLError):  # reported where it is applied
        if not parsed.is_delete() and parsed.value() != YAML(typ="safe").load(text):
            raise UserError(
                f"-S {item}: dvc takes {text!r} for {parsed.value()!r}; write null for nothing, plain decimal numbers"
            )


def _resolved(wanted: Sequence[str], values: dict[str, Any]) -> list[str]:
    """The last override of each key, with `$section.key` filled in, and what must go with it.

    A fraction of the labels comes with an empty split.count, which would win over it. Paths of the data set and of weights
    become absolute, since runs in copies of the repository must find them.
    """
    last = {_key(item): item for item in wanted}
    if "split.fraction" in last:
        last.setdefault("split.count", "split.count=null")
    plain = {key: item for key, item in last.items() if "$" not in item}
    known = overridden(values, list(plain.values()))
    number = next(
        (key for key in ("split.count", "split.fraction") if _value(known, key) is not None and key in last), None
    )
    if number and read_list(Path(known["split"]["labelled_list"])):
        raise UserError(
            f"split.labelled_list {known['split']['labelled_list']} names the labelled images and would win over "
            f"{last[number]}; empty it, or use a grid without {number}"
        )
    templates = {key: item for key, item in last.items() if key not in plain}
    for _ in templates:  # what one refers to may be filled in itself
        last |= {key: _filled(item, known) for key, item in templates.items()}
        known = overridden(values, list(last.values()))
    if known["data"]["name"] != "synthetic":
        last["data.root"] = f"data.root={_quoted(Path(known['data']['root']).expanduser().absolute())}"
    for section in ("model", "student_model"):
        weights = Path(known[section]["encoder_weights"]).expanduser()
        if weights.is_file():
            last[f"{section}.encoder_weights"] = f"{section}.encoder_weights={_quoted(weights.absolute())}"
    return list(last.values())


def _quoted(path: Path) -> str:
    """As hydra and YAML both read it.

    Raises:
        UserError: there is no such form.
    """
    if re.fullmatch(r"[A-Za-z0-9_./-]+", str(path)):
        return str(path)
    if re.search(r"['\\\\]", str(path)):
        raise UserError(f"{path}: dvc experiments cannot take a path with ' or \\; rename it")
    return f"'{path}'"


def _rounds(values: dict[str, Any], row: GridRow) -> Iterator[str]:
    """Overrides that turn rounds and baselines of params.yaml into those of the row."""
    chain = [TEACHER, *(f"student_{number + 1}" for number in range(row.rounds))]
    wanted = {
        "rounds": dict(zip(chain[1:], chain[:-1], strict=True)),
        "baselines": {} if row.baseline is None else {SUPERVISED: row.baseline},
    }
    for section, names in wanted.items():
        present = values[section]
        yield from (f"~{section}.{name}" for name in present if name not in names)
        yield from (f"+{section}.{name}={value}" for name, value in names.items() if name not in present)
        yield from (f"{section}.{name}={v}" for name, v in names.items() if name in present and present[name] != v)


def _filled(override: str, values: dict[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        try:
            found = _value(values, match[1])
        except (KeyError, TypeError):
            raise UserError(f"{override}: params.yaml has no {match[1]!r}") from None
        return "null" if found is None else str(found)

    return re.sub(r"\$(\w+\.\w+)", value, override)


def _value(values: dict[str, Any], path: str) -> Any:
    section, key = path.split(".")
    return values[section][key]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """What `dvc exp run -S` makes of params: `section.key=value`, `+section.key=value` for a new key, `~section.key`.

    Raises:
        UserError: an override names no section.
    """
    result = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    for override in overrides:
        path, _, text = override.lstrip("+~").partition("=")
        *sections, key = path.split(".")
        try:
            value = None if override.startswith("~") else YAML(typ="safe").load(text)
            if len(sections) > 1 or isinstance(value, dict):
                raise UserError(f"-S {override}: give one `section.key=value` for each key")
            target = result[sections[0]] if sections else result
            if override.startswith("~"):
                del target[key]
            else:
                target[key] = value
        except (KeyError, TypeError):
            raise UserError(f"-S {override}: params.yaml has no {path!r}") from None
        except YAMLError:
            raise UserError(f"-S {override}: {text!r} is no value") from None
    return result
