"""docs/: what is made from etl.py is fresh, the analysts' snippets run as they stand, the pictures fit any lake."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import check
import duckdb
import engines
import make
import pandas as pd
import pictures
import pytest
import sqlglot
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from pyspark.sql import SparkSession
from sqlglot import exp

import etl

DOCS = Path(__file__).parents[1] / "docs"
SNIPPETS = re.findall(
    r"^## (\w+)\n.*?^```(?:sql|python)\n(.*?)^```", (DOCS / "analysts.md").read_text("utf-8"), re.M | re.S
)
FINDINGS = {
    "plays_by_weekday_and_hour": "between 13:00 and 21:00 UTC.* 38% fewer plays than another day",
    "weekly_listeners": "from 12% to 56% in 5 weeks.* 29 of 52 listeners",
    "retention_by_week": "^67% of new listeners",  # of the 91 whose next week is in the lake
    "plays_by_place": "^San Francisco[^:]* most: 1,436 plays by 17 .*Marinette, WI-MI play most: 101 .* over 3",
    "top_songs": "^Letters by Żoro is played most",
}


def test_what_docs_make_py_makes_is_fresh() -> None:
    assert (DOCS / "tables.md").read_text("utf-8") == make.dictionary()
    assert (DOCS / "schema.svg").read_text("utf-8") == make.picture()


def test_docs_make_py_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "FOLDER", tmp_path)
    make.main()
    made = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert made == {name: (DOCS / name).read_text("utf-8") for name in ("tables.md", "schema.svg")}


def test_pictures_py_draws_the_readmes_picture(
    sample_lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    assert pictures.main(["--lake", sample_lake]) == 0
    [made] = tmp_path.iterdir()
    assert made.read_bytes().startswith(b"\x89PNG") and f"](docs/{made.name})" in (DOCS.parent / "README.md").read_text(
        "utf-8"
    )


def test_the_readme_shows_what_the_queries_answer() -> None:
    readme, answers = ((folder / "README.md").read_text("utf-8") for folder in (DOCS.parent, engines.FOLDER))
    question, table = re.findall(r"^\*\*([^*\n]*\?)\*\*\n\n((?:\|.*\n)+)", readme, re.M)[0]
    assert f"## {question}\n" in answers and table in answers
    *_, paid, found = check.read_expected("at_a_glance")[1]
    assert f"**{paid}% of the plays are paid**" in readme and readme.count(f"{found}%") == 3


@pytest.mark.parametrize("tool", ["DuckDB", "pandas", "Spark"])
def test_a_snippet_runs_as_it_stands_while_a_run_writes(
    tool: str, spark: SparkSession, sample_lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sample_lake, "lake")
    for table in etl.TABLES:
        half = Path("lake", table, "_temporary", "0", "year=2018", "month=11", "part-0.parquet")
        half.parent.mkdir(parents=True)
        half.write_bytes(b"PAR1")
    snippet = dict(SNIPPETS)[tool]
    if tool == "DuckDB":
        assert len(duckdb.connect().sql(snippet).fetchall()) == 10
        return
    files, root = etl.open_path(spark, "file:///")
    before = files.getWorkingDirectory()
    files.setWorkingDirectory(root.suffix(str(tmp_path).removeprefix("/")))  # Spark's relative paths are below it
    exec(snippet, {"spark": spark})
    files.setWorkingDirectory(before)


def test_athena_gets_the_columns_of_the_job() -> None:
    found = {}
    for statement in sqlglot.parse(dict(SNIPPETS)["Athena"], read="athena"):
        assert statement
        kinds = {column.name: str(column.kind).lower() for column in statement.find_all(exp.ColumnDef)}
        found[statement.this.this.name] = {name: kind.replace("text", "string") for name, kind in kinds.items()}
    assert found == engines.TYPES


def title_of(figure: Figure) -> str:
    return figure.get_suptitle() or figure.axes[0].get_title("left")


@pytest.mark.parametrize(("question", "picture"), pictures.PICTURES.items())
def test_a_picture_says_its_finding_and_where_there_is_none(
    question: str, picture: pictures.Picture, sample_lake: str
) -> None:
    with engines.duckdb_engine(sample_lake, None) as query:
        columns, rows = query((engines.FOLDER / f"{question}.sql").read_text("utf-8"))
    full = pd.DataFrame(rows, columns=list(columns))
    assert re.search(r"\d|[Mm]ost", title_of(picture(full)))
    assert "There are no plays." in picture(full.head(0)).get_supxlabel()


@pytest.mark.parametrize(
    ("sunday", "finding"), [(None, r"holds half of them\.$"), (6, "25% fewer plays than another day")]
)
def test_a_weekday_that_the_lake_has_no_day_of_is_no_day_without_plays(sunday: int | None, finding: str) -> None:
    columns = pd.read_csv(engines.FOLDER / "expected" / "plays_by_weekday_and_hour.csv").columns
    answer = pd.DataFrame([{"hour": 7, "monday": 8, "sunday": sunday}], columns=columns)
    assert re.search(finding, pictures.PICTURES["plays_by_weekday_and_hour"](answer).get_supxlabel())


@pytest.mark.parametrize("question", FINDINGS)
def test_what_a_picture_says_of_the_sample_is_so(question: str) -> None:
    answer = pd.read_csv(engines.FOLDER / "expected" / f"{question}.csv", na_values="NULL")
    figure = pictures.PICTURES[question](answer)
    assert re.search(FINDINGS[question], f"{title_of(figure)} {figure.get_supxlabel()}")


def test_bars_are_in_the_order_of_the_answer_each_of_its_value() -> None:
    rows = [("Rome", 40, 2), (None, 30, 5), ("Oslo", 20, 1)]
    answer = pd.DataFrame(rows, columns=["location", "plays", "listeners"])
    plays, per_listener = pictures.PICTURES["plays_by_place"](answer).axes
    bottom, top = plays.get_ylim()
    assert bottom > top and [label.get_text() for label in plays.get_yticklabels()] == ["Rome", "unknown", "Oslo"]
    values = [[text.get_text() for text in axes.texts] for axes in (plays, per_listener)]
    assert values == [["40", "30", "20"], ["20", "6", "20"]]


def test_of_many_weeks_each_label_is_at_its_week() -> None:
    weeks = pd.date_range("2018-12-03", periods=15, freq="7D")
    answer = pd.DataFrame({"week": weeks, "days": 7, "paid_percent": range(15), "listeners": 9, "paid_listeners": 4})
    [axes] = pictures.PICTURES["weekly_listeners"](answer).axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert [*axes.get_xticks()] == [0, 3, 6, 9, 12]
    assert labels == [f"from {week:%d %b}\n7 days" for week in weeks[::3]] and "of 2018 to 2019," in axes.get_xlabel()
    assert pd.Series(axes.lines[0].get_ydata()).tolist() == [*range(15)]
    notes = [(*note.xy, note.get_text()) for note in axes.texts if isinstance(note, Annotation)]
    assert notes == [(week, week, f"{week}%") for week in range(0, 15, 3)]


def test_a_week_that_is_not_known_yet_is_blank() -> None:
    names = ["first_week", "listeners", *(f"week_{week}_percent" for week in range(1, 5))]
    rows = [("2018-11-05", 4, 75, 50, None, None), ("2018-11-12", 2, 50, None, None, None)]
    [axes] = pictures.PICTURES["retention_by_week"](pd.DataFrame(rows, columns=names)).axes
    shown = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert shown == {((0.5, 0.5), "75%"), ((1.5, 0.5), "50%"), ((0.5, 1.5), "50%")}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "4"]
