"""etl.ipynb: its committed outputs are what it gives, it holds for other inputs, and a wrong row makes it fail."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from conftest import PLAY, ROOT, SONG, write_lines

TABLES = {"songs", "artists", "users", "songplays", "time"}
KOALAS = {f"koalas-{name}" for name in TABLES}
PICTURES = {f"picture-{name}" for name in ("hours", "paid", "retention", "places", "songs")}

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


def read_notebook() -> Any:
    return nbformat.read(ROOT / "etl.ipynb", as_version=4)  # type: ignore[no-untyped-call]


def cells_of(notebook: Any) -> dict[str, Any]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def execute(folder: Path, plant: str = "") -> dict[str, Any]:
    """The cells after a run from scratch in a copy of the project, on a machine whose clock is not UTC.

    It ends at the first error; with wrong rows planted it goes on, and leaves out the pictures.
    """
    for name in ("etl.py", "laptop.py", "dl.cfg"):
        shutil.copy(ROOT / name, folder)
    for name in ("docs", "queries"):
        shutil.copytree(ROOT / name, folder / name)
    notebook = read_notebook()
    cells_of(notebook)["session"].source += plant
    if plant:
        notebook.cells = [cell for cell in notebook.cells if not cell.id.startswith("picture")]
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(notebook, timeout=600, allow_errors=bool(plant), resources=resources)
    return cells_of(client.execute(env=os.environ | {"TZ": "Pacific/Auckland"}))


def said(cell: Any) -> str:
    """What a cell's outputs say, pictures left out: their bytes depend on matplotlib's version and fonts."""
    streams = [output.text for output in cell.outputs if output.output_type == "stream"]
    shown = [output.data for output in cell.outputs if "data" in output]
    return "".join(streams + [data[kind] for data in shown for kind in ("text/plain", "text/html") if kind in data])


def test_gives_the_committed_outputs_and_leaves_a_lake(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data", tmp_path / "data")
    fresh, committed = execute(tmp_path), cells_of(read_notebook())
    assert [*map(said, fresh.values())] == [*map(said, committed.values())]
    drawn = [cells[name].outputs[0].data for cells in (fresh, committed) for name in PICTURES]
    assert all("image/png" in data for data in drawn)
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"etl.py", "laptop.py", "dl.cfg", "docs", "queries", "data", "lake"}
    assert {path.name for path in (tmp_path / "lake").iterdir()} == {*TABLES, "_lake", "_koalas"}


def test_holds_for_an_input_with_a_rejected_line_and_without_plays(tmp_path: Path) -> None:
    write_lines(tmp_path / "data/song_data/a.json", SONG, SONG | {"song_id": "SO2", "title": "Two"})
    events = [PLAY | {"page": "Home", "ts": PLAY["ts"] + number} for number in range(100)]
    write_lines(tmp_path / "data/log_data/a.json", *events, PLAY | {"userId": ""})
    cells = execute(tmp_path)
    assert said(cells["rejected"]).startswith("rejected lines of the input: 1\n")
    assert all("There are no plays." in said(cells[name]) for name in PICTURES)


def test_a_wrong_row_fails_the_step_and_the_second_opinion_of_each_table(tmp_path: Path, small: Path) -> None:
    small.rename(tmp_path / "data")
    outputs = [(name, output) for name, cell in execute(tmp_path, PLANT).items() for output in cell.outputs]
    errors = {name: output.ename for name, output in outputs if output.output_type == "error"}
    assert errors == dict.fromkeys({*TABLES, *KOALAS, "koalas-write"}, "AssertionError")


def test_was_run_from_top_to_bottom_and_shows_nothing_of_one_machine_or_run() -> None:
    cells = cells_of(read_notebook())
    assert [cell.execution_count for cell in cells.values()] == [*range(1, len(cells) + 1)]
    assert not [output for cell in cells.values() for output in cell.outputs if output.get("name") == "stderr"]
    assert not [name for name, cell in cells.items() if "execution" in cell.metadata]  # when it ran
    text = "\n".join(cell.source + said(cell) for cell in cells.values())
    assert not re.findall(r"(?<![\w:/.}])/(?:[\w.-]+/)+[\w.-]*|file:/+\w\S*|[A-Z]:\\\S*|\d{8}T\d{6}Z\S*", text)


def test_has_a_text_before_each_step_and_an_assert_in_it() -> None:
    notebook, rules = read_notebook(), re.compile(r"\*\*In:\*\*.*\*\*Rule:\*\*.*\*\*Out:\*\*")
    steps = {cell.id.removesuffix("-text") for cell in notebook.cells if rules.search(cell.source)}
    assert steps > {*TABLES, *KOALAS, "rejected", "checks", "write", "read-back", "koalas-write"}
    assert not [name for name in steps if "assert" not in cells_of(notebook)[name].source.lower()]
