"""queries/: the expected results are right by plain Python, both engines agree with them, and a wrong lake shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).parents[1] / "queries"))

import check
import make_expected

QUERIES = Path(__file__).parents[1] / "queries"
NAMES = sorted(path.stem for path in QUERIES.glob("*.sql"))


@pytest.fixture
def lake(sample_lake: str, tmp_path: Path) -> Path:
    """A copy of the sample's lake, to be spoiled."""
    return Path(shutil.copytree(sample_lake, tmp_path / "lake"))


def a_file(lake: Path, table: str) -> Path:
    return Path(check.parquet_files(lake / table)[0])


def rewrite(path: Path, select: str, limit: str = "") -> None:
    """Replaces a parquet file by the rows that the select makes of its rows."""
    new = path.with_suffix(".new")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = f"FROM read_parquet('{path}', hive_partitioning = false)"
        connection.execute(f"COPY ({select} {rows} {limit}) TO '{new}' (FORMAT parquet)")
    new.replace(path)


class TestExpected:
    def test_is_what_plain_python_makes_of_the_raw_files(self, tmp_path: Path) -> None:
        assert make_expected.main(["--out", str(tmp_path)]) == 0
        made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
        kept = {path.name: path.read_text(encoding="utf-8") for path in (QUERIES / "expected").iterdir()}
        assert made == kept

    def test_is_there_for_each_of_at_least_ten_queries(self) -> None:
        assert len(NAMES) >= 10
        assert sorted(path.stem for path in (QUERIES / "expected").iterdir()) == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_has_rows_and_its_query_says_the_question(self, name: str) -> None:
        assert len(check.read_expected(name)) > 1
        first_line = (QUERIES / f"{name}.sql").read_text(encoding="utf-8").splitlines()[0]
        assert first_line.startswith("-- ")
        assert first_line.endswith("?")

    def test_uses_every_table(self) -> None:
        words = set(" ".join((QUERIES / f"{name}.sql").read_text(encoding="utf-8") for name in NAMES).split())
        assert set(check.TABLES) < words


class TestEngines:
    def test_duckdb_agrees(self, sample_lake: str) -> None:
        run = subprocess.run(
            [sys.executable, str(QUERIES / "check.py"), "--lake", sample_lake],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        *lines, last = run.stdout.splitlines()
        assert (run.returncode, run.stderr) == (0, "")
        assert [line.split()[2] for line in lines if line.startswith("as expected ")] == NAMES
        assert last == f"{len(NAMES)} of {len(NAMES)} queries as expected"

    def test_spark_agrees(self, sample_lake: str) -> None:
        run = subprocess.run(
            [sys.executable, str(QUERIES / "check.py"), "--lake", sample_lake, "--engine", "spark"],
            check=False,
            capture_output=True,
            text=True,
            timeout=400,
            env={**os.environ, "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1"},  # half the time, for a run this short
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stdout.splitlines()[-1] == f"{len(NAMES)} of {len(NAMES)} queries as expected"

    def test_files_that_spark_does_not_read_are_not_read_by_duckdb(self, lake: Path) -> None:
        play = a_file(lake, "songplays")
        for hidden in (lake / "songplays" / "_temporary" / "0", play.parent / ".staging"):
            hidden.mkdir(parents=True)
            shutil.copy(play, hidden)
        shutil.copy(play, play.with_name(f".{play.name}"))
        (play.parent / f".{play.name}.crc").write_bytes(b"crc")
        assert check.main(["--lake", lake.as_uri()]) == 0


class TestWrongLake:
    def differing(self, lake: Path, capsys: pytest.CaptureFixture[str]) -> set[str]:
        assert check.main(["--lake", str(lake)]) == 1
        return {line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERENT ")}

    def test_one_play_too_many_shows(self, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
        play = a_file(lake, "songplays")
        more = play.with_name(f"more-{play.name}")
        shutil.copy(play, more)
        rewrite(more, "SELECT * REPLACE ('x' AS songplay_id)", "LIMIT 1")
        assert {"plays_by_day", "plays_by_hour", "plays_by_place"} <= self.differing(lake, capsys)

    def test_one_wrong_level_shows(self, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rewrite(
            a_file(lake, "users"),
            "SELECT * REPLACE (CASE WHEN user_id = '62' THEN 'free' ELSE level END AS level)",
        )
        assert self.differing(lake, capsys) == {"most_active_users"}

    def test_the_difference_is_shown(self, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rewrite(a_file(lake, "users"), "SELECT * REPLACE (NULL::VARCHAR AS gender)")
        assert check.main(["--lake", str(lake)]) == 1
        shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
        header, *expected = check.read_expected("plays_by_gender")
        assert header[0] == "gender"
        assert {"-" + ", ".join(row) for row in expected} < set(shown)
        assert any(line.startswith("+NULL, free, ") for line in shown)
        assert shown[-1] == f"{len(NAMES) - 1} of {len(NAMES)} queries as expected"

    def test_times_of_another_zone_show(self, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rewrite(a_file(lake, "time"), "SELECT * REPLACE (CAST((hour + 1) % 24 AS INTEGER) AS hour)")
        assert self.differing(lake, capsys) == {"plays_by_hour"}

    def test_a_query_that_fails_is_named_and_the_others_still_run(
        self, lake: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rewrite(a_file(lake, "songplays"), "SELECT * REPLACE (start_time::VARCHAR || '!' AS start_time)")
        assert check.main(["--lake", str(lake)]) == 1
        out = capsys.readouterr().out
        assert "FAILED       session_length: " in out
        assert "as expected  top_songs" in out


class TestBadLake:
    def error(self, lake: Path | str, capsys: pytest.CaptureFixture[str]) -> str:
        assert check.main(["--lake", str(lake)]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        return shown.err.strip()

    def test_no_lake(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        lake = tmp_path / "none"
        message = f"check.py: error: {lake} holds no tables; write them with: python etl.py --output {lake}"
        assert self.error(lake, capsys) == message

    def test_empty_lake(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for table in check.TABLES:
            (tmp_path / table).mkdir()
        assert "holds no tables" in self.error(tmp_path, capsys)

    def test_missing_table(self, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.rmtree(lake / "users")
        assert self.error(lake, capsys) == f"check.py: error: {lake} has no table users: no parquet file there"

    def test_missing_column(self, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rewrite(a_file(lake, "artists"), "SELECT * EXCLUDE (location)")
        message = "table artists has no column location; it has artist_id, name, latitude, longitude"
        assert self.error(lake, capsys) == f"check.py: error: {message}"

    def test_broken_file(self, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
        a_file(lake, "artists").write_bytes(b"no parquet")
        assert self.error(lake, capsys).startswith("check.py: error: cannot read table artists: ")

    def test_remote_lake_needs_spark(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.error("s3a://bucket/lake", capsys).endswith("for s3a://bucket/lake add --engine spark")

    def test_missing_expected_result(
        self, sample_lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "new.sql").write_text("-- What is new?\nSELECT 1", encoding="utf-8")
        monkeypatch.setattr(check, "FOLDER", tmp_path)
        assert "new.csv is missing in queries/expected" in self.error(sample_lake, capsys)

    def test_duckdb_not_installed(
        self, sample_lake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "duckdb", None)
        assert "pip install -r queries/requirements.txt" in self.error(sample_lake, capsys)


class TestBadLakeOnSpark:
    def test_empty_lake(self, spark: SparkSession, tmp_path: Path) -> None:
        with pytest.raises(check.CheckError, match="holds no tables"):
            check.spark_query(spark, str(tmp_path))

    def test_missing_table(self, spark: SparkSession, lake: Path) -> None:
        shutil.rmtree(lake / "users")
        with pytest.raises(check.CheckError, match="has no table users"):
            check.spark_query(spark, str(lake))

    def test_missing_column(self, spark: SparkSession, lake: Path) -> None:
        rewrite(a_file(lake, "artists"), "SELECT * EXCLUDE (location)")
        with pytest.raises(check.CheckError, match=r"^table artists has no column location; it has artist_id"):
            check.check_columns(check.spark_query(spark, str(lake)))
