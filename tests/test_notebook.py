"""etl.ipynb: it runs whole in a clean kernel, its committed outputs are what it gives, and a wrong row makes it fail."""

from __future__ import annotations

import ast
import base64
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from conftest import ROOT

TABLES = ("songs", "artists", "users", "songplays", "time")

# One wrong value in the first row of each table, and keys, counts and types as they should be.
PLANT = """
WRONG = {
    "songs": ("title", F.lit("Wrong")),
    "artists": ("name", F.lit("Wrong")),
    "users": ("level", F.lit("wrong")),
    "songplays": ("user_agent", F.lit("wrong")),
    "time": ("hour", (F.col("hour") + 1) % 24),
}


def plant(name, column, wrong):
    build = getattr(etl, f"build_{name}")

    def build_wrong(*rows):
        table = build(*rows)
        key = table.columns[0]
        first = F.col(key) == table.agg(F.min(key)).first()[0]
        return table.withColumn(column, F.when(first, wrong).otherwise(F.col(column)))

    setattr(etl, f"build_{name}", build_wrong)


for name, (column, wrong) in WRONG.items():
    plant(name, column, wrong)
"""


def read_notebook() -> Any:
    return nbformat.read(ROOT / "etl.ipynb", as_version=4)  # type: ignore[no-untyped-call]


def execute(notebook: Any, folder: Path, *, allow_errors: bool = False) -> Any:
    """Runs a notebook from scratch in a copy of the project, on a machine whose clock is not UTC."""
    for name in ("etl.py", "laptop.py", "dl.cfg"):
        shutil.copy(ROOT / name, folder)
    for name in ("queries", "data"):
        shutil.copytree(ROOT / name, folder / name)
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", allow_errors=allow_errors, resources=resources
    )
    return client.execute(env=os.environ | {"TZ": "Pacific/Auckland"})


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell: Any) -> list[str]:
    """What a cell's outputs say, pictures left out: their bytes depend on matplotlib's version and fonts."""
    streams = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    shown = [output.data for output in cell.outputs if output.output_type in ("execute_result", "display_data")]
    return [streams, *(data[kind] for data in shown for kind in ("text/plain", "text/html") if kind in data)]


def pictures(notebook: Any) -> dict[str, str]:
    outputs = [(cell.id, output.get("data", {})) for cell in code_cells(notebook) for output in cell.outputs]
    return {name: data["image/png"] for name, data in outputs if "image/png" in data}


@pytest.fixture(scope="module")
def committed() -> Any:
    return read_notebook()


def test_a_fresh_run_gives_the_committed_outputs_and_a_lake(committed: Any, tmp_path: Path) -> None:
    fresh = execute(read_notebook(), tmp_path)  # raises at the first error
    for now, then in zip(code_cells(fresh), code_cells(committed), strict=True):
        assert texts(now) == texts(then), now.id
    assert pictures(fresh).keys() == pictures(committed).keys() and len(pictures(fresh)) >= 6
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"etl.py", "laptop.py", "dl.cfg", "queries", "data", "lake"}
    assert {path.name for path in (tmp_path / "lake").iterdir()} >= {*TABLES}


def test_it_was_run_from_top_to_bottom_without_error_or_warning(committed: Any) -> None:
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_it_has_nothing_of_one_machine_or_one_run_and_is_small(committed: Any) -> None:
    shown = [text for cell in code_cells(committed) for text in texts(cell)]
    said = "\n".join([*(cell.source for cell in committed.cells), *shown])
    paths = re.findall(r"(?<![\w:/.])/(?:[\w.-]+/)+[\w.-]*|file:/\S*|[A-Z]:\\\S*", said)
    assert not paths + re.findall(r"\d{8}T\d{6}Z\S*", said)  # run ids
    assert not [cell.id for cell in committed.cells if "execution" in cell.metadata]  # when it ran
    assert (ROOT / "etl.ipynb").stat().st_size < 1_500_000


def test_it_shows_the_picture_of_the_readme(committed: Any) -> None:
    shown = base64.b64decode(pictures(committed)["picture-hours"])
    assert (ROOT / "docs" / "plays_by_day_and_hour.png").read_bytes() == shown


def test_it_sets_its_constants_in_one_cell(committed: Any) -> None:
    def assigned(cell: Any) -> set[str]:
        source = re.sub(r"^%.*", "", cell.source, flags=re.MULTILINE)
        names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
        return {node.id for node in names if isinstance(node.ctx, ast.Store)}

    first, *others = code_cells(committed)
    assert assigned(first) == {"INPUT", "OUTPUT"}
    assert not [cell.id for cell in others if assigned(cell) & {"INPUT", "OUTPUT"}]


def test_it_has_a_text_before_each_step_and_an_assert_in_it(committed: Any) -> None:
    cells = {cell.id: cell for cell in committed.cells}
    steps = [name.removesuffix("-text") for name, cell in cells.items() if "**Rule:**" in cell.source]
    assert {*steps} >= {"configuration", "session", "read-songs", "read-logs", *TABLES, "checks", "write", "read-back"}
    assert [step for step in steps if "assert " not in cells[step].source] == []


@pytest.mark.long  # a second execution of the whole notebook
def test_a_wrong_row_fails_the_step_and_the_second_opinion_of_its_table(tmp_path: Path) -> None:
    """Of each table one value is wrong; run on other folders than the usual ones."""
    notebook = read_notebook()
    for cell in code_cells(notebook):
        if cell.id == "constants":
            cell.source = 'INPUT, OUTPUT = "data", "elsewhere/lake"'
        elif cell.id == "session":
            cell.source += PLANT
        elif cell.id.startswith(("explore", "picture")):
            cell.source = "pass"
    spoiled = execute(notebook, tmp_path, allow_errors=True)
    outputs = [(cell.id, output) for cell in code_cells(spoiled) for output in cell.outputs]
    errors = {name: output.ename for name, output in outputs if output.output_type == "error"}
    assert errors == dict.fromkeys({*TABLES, *(f"koalas-{name}" for name in TABLES)}, "AssertionError")
    assert (tmp_path / "elsewhere" / "lake" / "songplays").is_dir() and not (tmp_path / "lake").exists()
