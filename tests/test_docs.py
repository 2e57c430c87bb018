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
