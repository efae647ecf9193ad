"""Declared grids of experiments: the rows and columns of a table, and the params of each cell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pydantic import Field, model_validator

from segsemi.core.config import TEACHER, Params, Section, load_values, parse, parse_params
from segsemi.core.consistency import METHODS, SUPERVISED
from segsemi.core.errors import UserError
from segsemi.core.files import yaml_names
from segsemi.core.recipe import Budget, budget_of
from segsemi.datasets.entries import read_lines

_FOLDER = resources.files("segsemi.experiments") / "grids"
_LABELLED = {"split.fraction", "split.count", "split.labelled_list"}  # each says which images are labelled


class GridRow(Section):
    """One row of a table.

    Attributes:
        model: the name of the model that is measured.
        rounds: number of students trained in turn, from student_1 on; 0: the teacher alone.
        baseline: the student whose budget a comparison method gets: `model` if that is one, else `supervised`.
        set: overrides, as for `dvc exp run -S`; `section.key=${section.key}` takes the value of another param.
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
        against: rows on which the gain of the others is given.
        ladder: rows of which each is given its gain on the one before it in this list.
        lines: whether the figure draws lines along the rows or the columns; none: a dot per seed.
    """

    columns: dict[str, list[str]] = Field(min_length=1)
    rows: dict[str, GridRow] = Field(min_length=1)
    common: list[str] = Field(default_factory=list)
    against: list[str]
    ladder: list[str] = Field(default_factory=list)
    lines: Literal["rows", "columns"] | None = None

    @model_validator(mode="after")
    def _known(self) -> Grid:
        for key, names in (("against", self.against), ("ladder", self.ladder)):
            for row in names:
                if row not in self.rows:
                    raise ValueError(f"{key}: {row!r} is no row")
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
    def budget(self) -> Budget:
        """Return what went into the model, including its teachers if it learnt from them."""
        return budget_of(self.params, self.model)


def grid_names() -> list[str]:
    """Return the names of the grids of the package."""
    return yaml_names(_FOLDER)


def read_grid(name: str) -> tuple[Grid, str]:
    """Return a grid and its title, the comment in its first line.

    Args:
        name: a grid of the package, or the path of a YAML file.

    Raises:
        UserError: there is none of that name, or the file is wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else Path(str(_FOLDER), f"{name}.yaml")
    if not path.is_file():
        raise UserError(f"no grid {name!r}; there are {', '.join(grid_names())}, or the path of a YAML file like them")
    grid = parse(Grid, load_values(path), source=str(path))
    first = path.read_text().splitlines()[0]
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
    """Return the cells, seed by seed, so that a table is complete for one seed before the next begins.

    Args:
        values: params.yaml.
        columns, rows: headings; none: all.
        extra: overrides of all cells; they win over those of the grid.

    Raises:
        UserError: an unknown column or row, an override that params.yaml or dvc does not allow, or an extra override of a
            param in which the cells differ.
    """
    parse_params(values)
    _check_extra(grid, extra)
    for kind, wanted, known in (("column", columns, grid.columns), ("row", rows, grid.rows)):
        for heading in wanted:
            if heading not in known:
                raise UserError(f"no {kind} {heading!r}; there are {', '.join(map(repr, known))}")
    return [
        _cell(grid, values, row, column, seed, extra)
        for seed in dict.fromkeys(seeds)
        for column in dict.fromkeys(columns or grid.columns)
        for row in dict.fromkeys(rows or grid.rows)
    ]


def _cell(grid: Grid, values: dict[str, Any], name: str, column: str, seed: int, extra: Sequence[str]) -> Cell:
    row = grid.rows[name]
    own = [*grid.common, *grid.columns[column], *row.set, *extra]
    count = ["split.count=null"] if any(_key(item) == "split.fraction" for item in own) else []  # it would win
    overrides = [*_rounds(values, row), *count, *own, f"seed={seed}"]
    source = f"row {name!r}, column {column!r}"
    wished = overridden(values, overrides)
    absolute = list(_absolute_paths(parse_params(wished, source=source)))
    params = parse_params(overridden(wished, absolute), source=source)
    if row.model not in (TEACHER, *params.rounds, *params.baselines):
        raise UserError(f"row {name!r} measures {row.model!r}, which its params do not train")
    listed = params.split.labelled_list
    if {_key(item) for item in own} & {"split.fraction", "split.count"} and read_lines(Path(listed), may_be_empty=True):
        raise UserError(f"{source}: split.labelled_list {listed} names images and would win over the grid; empty it")
    return Cell(name, column, seed, row.model, (*overrides, *absolute), params)


def _check_extra(grid: Grid, extra: Sequence[str]) -> None:
    own = [*grid.columns.values(), *(row.set for row in grid.rows.values())]
    varied = {"seed", "rounds", "baselines"} | {_key(item) for items in own for item in items}
    if varied & _LABELLED:
        varied |= _LABELLED
    for item in extra:
        if _key(item) in varied or _key(item).partition(".")[0] in varied:
            raise UserError(
                f"-S {item}: in {_key(item)} the grid's cells differ; choose cells with --seeds, --columns and --rows, or "
                "write a grid of your own (docs/experiments.md)"
            )


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _rounds(values: dict[str, Any], row: GridRow) -> Iterator[str]:
    """Yield the overrides that turn rounds and baselines of params.yaml into those of the row."""
    chain = [TEACHER, *(f"student_{number + 1}" for number in range(row.rounds))]
    method = row.model if row.model in METHODS else SUPERVISED
    baselines = {} if row.baseline is None else {method: row.baseline}
    for section, names in (("rounds", dict(zip(chain[1:], chain[:-1], strict=True))), ("baselines", baselines)):
        yield from (f"~{section}.{name}" for name in values[section] if name not in names)
        yield from (f"++{section}.{name}={value}" for name, value in names.items())


def _absolute_paths(params: Params) -> Iterator[str]:
    """Yield overrides with absolute paths of data set and weights, since runs in copies of the repository must find them."""
    root, models = Path(params.data.root), {"model": params.model, "student_model": params.student_model}
    paths = {} if params.data.embedded else {"data.root": root}
    paths |= {f"{name}.encoder_weights": Path(model.encoder_weights).expanduser() for name, model in models.items()}
    for key, path in paths.items():
        if path.is_file() or key == "data.root":
            yield f"{key}={json.dumps(str(path.absolute()), ensure_ascii=False)}"


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return what `dvc exp run -S` makes of params, by dvc's own code.

    Raises:
        UserError: an override is none, or params.yaml has no such key.
    """
    from dvc.exceptions import InvalidArgumentError  # slow to import, like the next two
    from dvc.utils.hydra import apply_overrides
    from omegaconf.errors import OmegaConfBaseException

    with TemporaryDirectory() as folder:
        path = Path(folder, "params.json")  # read and written faster than YAML
        path.write_text(json.dumps(values))
        try:
            apply_overrides(path, list(overrides))
        except (InvalidArgumentError, OmegaConfBaseException) as error:
            cause = error.__cause__ or error
            wrong = getattr(cause, "override", None) or "an override"
            raise UserError(f"dvc refuses {wrong}: {' '.join(str(cause).split())}") from None
        return json.loads(path.read_text())
