"""etl.ipynb: its committed outputs are what it gives, it holds for other inputs, and a wrong row makes it fail."""

from __future__ import annotations

import os
import re
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from conftest import PLAY, ROOT, write_lines, write_small
from pictures import PICTURES

import etl

TABLES = {"songs", "artists", "users", "songplays", "time"}
KOALAS = {f"koalas-{name}" for name in TABLES}
DRAWN = {f"picture-{question}" for question in PICTURES}
FEW_ROWS = """
spark.conf.set("spark.sql.shuffle.partitions", 1)
spark.conf.set("spark.sql.codegen.wholeStage", False)  # to compile takes longer than to run
"""
# One wrong value in the first row of each table, and keys, counts and types as they should be.
PLANT = """
def plant(table, column, wrong):
    build, key = getattr(etl, f"build_{table}"), etl.KEYS[table]
    def build_wrong(*rows):
        built = build(*rows)
        is_first = F.col(key) == built.agg(F.min(key)).first()[0]
        return built.withColumn(column, F.when(is_first, wrong).otherwise(F.col(column)))
    setattr(etl, f"build_{table}", build_wrong)


for table, column in {"songs": "title", "artists": "name", "users": "level", "songplays": "user_agent"}.items():
    plant(table, column, F.lit("wrong"))
plant("time", "hour", (F.col("hour") + 1) % 24)
"""
STORE = """
for name in etl.TABLES:  # as if it had been written and read back
    globals()[name].createOrReplaceTempView(name)
"""
# A run on each input, one after the other in one kernel and session: the cells that it does without, and what it adds.
WITHOUT = {
    "data": {"end"},
    "quiet": {"session", "end"},
    "small": {"session", "rejected", "checks", "write", "read-back", "explore", *DRAWN},
}
ADDED = {("data", "read-songs"): FEW_ROWS, ("small", "songs"): PLANT, ("small", "koalas"): STORE}
NOTEBOOK = nbformat.read(ROOT / "etl.ipynb", as_version=4)  # type: ignore[no-untyped-call]
CELLS = {cell.id: cell for cell in NOTEBOOK.cells if cell.cell_type == "code"}
Cells = dict[str, Any]


def said(cell: Any) -> str:
    """What a cell's outputs say, pictures left out: their bytes depend on matplotlib's version and fonts."""
    streams = [output.text for output in cell.outputs if output.output_type == "stream"]
    shown = [output.data for output in cell.outputs if "data" in output]
    return "".join(streams + [data[kind] for data in shown for kind in ("text/plain", "text/html") if kind in data])


def errors_of(cells: Cells) -> dict[str, str]:
    outputs = ((name, output) for name, cell in cells.items() for output in cell.outputs)
    return {name: output.ename for name, output in outputs if output.output_type == "error"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with the sample, an input without plays (one line rejected, one of nobody), a small one."""
    folder = tmp_path_factory.mktemp("notebook")
    for name in ("etl.py", "laptop.py", "dl.cfg"):
        shutil.copy(ROOT / name, folder)
    config = folder / "dl.cfg"
    config.write_text(re.sub(r"(?m)^CATALOG *=.*", "CATALOG = lake.sparkify", config.read_text("utf-8")), "utf-8")
    assert etl.read_config(str(config))["LAKE"]["CATALOG"]  # which the notebook leaves alone
    for name in ("docs", "queries", "data"):
        shutil.copytree(ROOT / name, folder / name)
    events = [PLAY | {"page": "Home", "ts": PLAY["ts"] + number} for number in range(100)]
    write_lines(write_small(folder / "quiet") / "log_data/a.json", *events, {"page": "Home"}, PLAY | {"userId": ""})
    write_small(folder / "small")
    return folder


@pytest.fixture(scope="module")
def runs(project: Path) -> dict[str, Cells]:
    """The cells of each run, on a machine whose clock is not UTC."""
    runs: dict[str, Cells] = {
        name: {cell: deepcopy(CELLS[cell]) for cell in CELLS if cell not in without}
        for name, without in WITHOUT.items()
    }
    for (name, cell), source in ADDED.items():
        runs[name][cell].source = source + runs[name][cell].source
    for name, cells in runs.items():
        cells["constants"].source = cells["constants"].source.replace('INPUT = "data"', f'INPUT = "{name}"')
        for cell in cells.values():
            cell.id = f"{name}-{cell.id}"
    notebook = nbformat.v4.new_notebook(cells=[cell for cells in runs.values() for cell in cells.values()])  # type: ignore[no-untyped-call]
    client = nbclient.NotebookClient(notebook, timeout=600, allow_errors=True)
    client.execute(cwd=str(project), env=os.environ | {"TZ": "Pacific/Auckland"})
    return runs


def test_gives_the_committed_outputs_and_leaves_a_lake(runs: dict[str, Cells], project: Path) -> None:
    fresh = runs["data"]
    assert errors_of(fresh) == {}
    assert {name: said(fresh[name]) for name in fresh} == {name: said(CELLS[name]) for name in fresh}
    assert all("image/png" in cells[name].outputs[0].data for cells in (fresh, CELLS) for name in DRAWN)
    left = {path.name for path in project.iterdir()} - {"__pycache__"}
    assert left == {"etl.py", "laptop.py", "dl.cfg", "docs", "queries", "data", "quiet", "small", "lake"}
    assert {path.name for path in (project / "lake").iterdir()} == {*TABLES, "_lake", "_rejected", "_koalas"}


def test_holds_for_an_input_with_a_rejected_line_and_without_plays(runs: dict[str, Cells]) -> None:
    cells = runs["quiet"]
    assert errors_of(cells) == {}
    assert said(cells["rejected"]).startswith("rejected lines of the input: 1\n")
    assert all("There are no plays." in said(cells[name]) for name in DRAWN)


def test_a_wrong_row_fails_the_step_and_the_second_opinion_of_each_table(runs: dict[str, Cells]) -> None:
    assert errors_of(runs["small"]) == dict.fromkeys({*TABLES, *KOALAS, "koalas-write"}, "AssertionError")


def test_was_run_from_top_to_bottom_and_shows_nothing_of_one_machine_or_run() -> None:
    assert [cell.execution_count for cell in CELLS.values()] == [*range(1, len(CELLS) + 1)]
    assert not [output for cell in CELLS.values() for output in cell.outputs if output.get("name") == "stderr"]
    assert not [name for name, cell in CELLS.items() if "execution" in cell.metadata]  # when it ran
    text = "\n".join(cell.source + said(cell) for cell in CELLS.values())
    assert not re.findall(r"(?<![\w:/.}])/(?:[\w.-]+/)+[\w.-]*|file:/+\w\S*|[A-Z]:\\\S*|\d{8}T\d{6}Z\S*", text)


def test_has_a_text_before_each_step_and_an_assert_in_it() -> None:
    rules = re.compile(r"\*\*In:\*\*.*\*\*Rule:\*\*.*\*\*Out:\*\*")
    steps = {cell.id.removesuffix("-text") for cell in NOTEBOOK.cells if rules.search(cell.source)}
    assert steps > {*TABLES, *KOALAS, "rejected", "checks", "write", "read-back", "koalas-write"}
    assert not [name for name in steps if "assert" not in CELLS[name].source.lower()]
