"""queries/: the answers are right by plain Python on both engines, any lake's are shown, and a wrong lake is told."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import check
import duckdb
import engines
import make_expected
import oracle
import pytest
import show
import sqlglot
from conftest import open_catalog
from pyspark.sql import SparkSession
from s3 import S3Server
from sqlglot import exp
from sqlglot.optimizer import optimize
from sqlglot.planner import Plan

import etl
import laptop

QUESTIONS = {question.name: question for question in engines.read_questions()}
ALL = f"{len(QUESTIONS)} of {len(QUESTIONS)} queries as expected"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def lake(sample_lake: str, tmp_path: Path) -> Path:
    """A copy of the sample's lake, to be spoiled, in a folder whose name holds wildcards."""
    return Path(shutil.copytree(sample_lake, tmp_path / "a [1] {x,y} * lake's"))


@pytest.fixture(scope="module")
def session(spark: SparkSession, interpreted: None) -> SparkSession:
    """One for the queries, which set its time zone and make views."""
    return spark.newSession()


def rewrite(lake: Path, table: str, select: str, which: str = "", to: str = "") -> None:
    """Replaces a table by one file of the rows that the select makes of its rows."""
    new = lake / "new.parquet"
    with duckdb.connect() as connection:
        files = [str(path) for path in (lake / table).rglob("*.parquet")]
        rows = f"FROM read_parquet($files, hive_partitioning = true) {which}"
        connection.execute(f"COPY ({select} {rows}) TO $new (FORMAT parquet)", {"files": files, "new": str(new)})
    shutil.rmtree(lake / table)
    (lake / table / to).mkdir(parents=True)
    new.rename(lake / table / to / new.name)


def different_in(out: str) -> set[str]:
    """The questions of which check.py has said that their answers differ."""
    return {line.split()[1] for line in out.splitlines() if line.startswith("DIFFERENT ")}


def test_the_expected_answers_are_those_of_plain_python(tmp_path: Path) -> None:
    assert make_expected.main(["--out", str(tmp_path)]) == 0
    folders = (tmp_path, engines.FOLDER / "expected")
    made, kept = ({path.name: path.read_text("utf-8") for path in folder.iterdir()} for folder in folders)
    assert made == kept
    assert kept.keys() == {f"{name}.csv" for name in QUESTIONS} | {"sample.json"}


DATES = [(2012, 11, 5), (2018, 11, 5), (2018, 11, 30), (2018, 12, 1), (2018, 12, 31), (2019, 1, 1), (2019, 1, 16)]


def odd_lake(dates: list[tuple[int, int, int]]) -> oracle.Lake:
    """Sessions over midnight and years apart, ids of sessions that users share, ties, bounds of classes, and nulls."""
    draw = random.Random(16)
    agents = ["iPad", "iPad; iPhone", "Android; Linux", "Windows", "Macintosh", "Linux"]
    songs = [("S1", "A1"), ("S2", "A9"), ("S3", "A3"), ("S4", "A5"), (None, None)]
    plays = []
    for number, count in enumerate([1, 2, 3, 5, 9] * 30 + [11, 26, 51, 101]):
        start = datetime(*draw.choice(dates)) + timedelta(hours=draw.randrange(-12, 12, 4))
        step = timedelta(minutes=1 if count > 10 else draw.choice([0, 5, 10, 15, 30, 60]))
        user, session = str(draw.randrange(30) if count < 10 else number), draw.choice([1, number])
        tie = [("a", "curl"), (None, None)][number % 2]  # in the first ten sessions 20 plays each
        place, agent = tie if number < 10 else (draw.choice("bcdefghijklm"), draw.choice(agents))
        for play in range(count):
            time = start + play * step
            levels = ["free", "paid", "trial", None]
            if count > 10:
                levels = ["paid" if play == count - 1 else "free"]
            key, level, song = f"{draw.getrandbits(64):x}", draw.choice(levels), draw.choice(songs)
            plays.append((key, time, user, level, *song, session, place, agent, time.year, time.month))
    times = {(time, time.hour, time.day, time.isocalendar()[1], time.month, time.year, time.isoweekday() % 7 + 1)
             for _, time, *_ in plays}  # fmt: skip
    return oracle.Lake(
        {
            "songs": [(f"S{n}", f"T{n % 3}", f"A{n % 4}", draw.choice([0, 1994, 2001]), n + 0.5) for n in range(20)],
            "artists": [(f"A{n}", f"N{n % 2}", None, None, None) for n in range(10)],
            "users": [(str(n), f"F{n % 3}", None, draw.choice(["F", "M", None]), "free") for n in range(154)],
            "time": list(times),
            "songplays": plays,
        }
    )


@pytest.mark.parametrize("dates", [DATES, DATES[:1]])  # the second has no Tuesday
def test_an_odd_lake_is_answered_as_by_plain_python(dates: list[tuple[int, int, int]]) -> None:
    lake = odd_lake(dates)
    expected = make_expected.Questions(lake)
    with duckdb.connect() as connection:
        connection.execute("SET default_null_order = 'nulls_first'")  # as Spark's and unlike DuckDB's
        for table, types in engines.TYPES.items():
            columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
            connection.execute(f"CREATE TABLE {table} ({columns})")
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(types))})", lake.tables[table])
        for name, question in QUESTIONS.items():
            columns, rows = getattr(expected, name)()
            answer = connection.sql(question.sql)
            assert (name, answer.columns) == (name, columns.split())
            found, wanted = ([[*map(engines.as_text, row)] for row in each] for each in (answer.fetchall(), rows))
            assert found == wanted, name


@pytest.mark.parametrize("name", QUESTIONS)
def test_trino_plans_a_question_that_the_sample_answers(name: str) -> None:
    columns, *rows = check.read_expected(name)
    assert QUESTIONS[name].text.endswith("?") and QUESTIONS[name].bar in {"", *columns} and rows
    tree = sqlglot.parse_one(QUESTIONS[name].sql, read="trino")
    assert not list(tree.find_all(exp.Anonymous, exp.Command)), "a function that Trino does not have"
    plan = Plan(optimize(tree, schema={**engines.TYPES}, dialect="trino"))
    assert [column.alias_or_name for column in plan.root.projections] == columns


def test_both_engines_agree_with_the_expected_answers_while_a_run_writes(
    lake: Path, session: SparkSession, capsys: Capture
) -> None:
    play = next((lake / "songplays").rglob("*.parquet"))
    for hidden in (lake / "songplays" / "_temporary" / "0" / "a.parquet", play.with_name(f".{play.name}")):
        hidden.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(play, hidden)
    assert check.main(["--lake", str(lake)]) == 0
    assert check.check(engines.spark_query(session, str(lake)), Namespace(lake=lake)) == 0
    assert capsys.readouterr().out.splitlines().count(ALL) == 2


def test_duckdb_reads_s3_with_nothing_to_download(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server() as server:
        server.make_bucket("lakes", "eu-west-1")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert check.main(["--lake", server.upload(lake, "lakes", "a b/lake")]) == 0


def test_spark_answers_from_s3_as_duckdb_from_local_files(lake: Path, capsys: Capture) -> None:
    command = [sys.executable, str(engines.FOLDER / "show.py"), "--engine", "spark", "at_a_glance", "--lake"]
    with S3Server() as server:
        server.make_bucket("spark-lakes", "eu-west-1")
        command.append(server.upload(lake, "spark-lakes", "a b/lake").replace("s3a:", "s3:"))
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | server.environment, check=False)
    assert show.main(["--lake", str(lake), "at_a_glance"]) == 0
    assert (done.returncode, done.stdout, done.stderr) == (0, capsys.readouterr().out, "")


def test_spark_starts_for_the_lake_its_catalog_and_the_keys_of_the_configuration_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.cfg").write_text("[AWS]\nAWS_ACCESS_KEY_ID = KEY\nAWS_SECRET_ACCESS_KEY = secret\n", "utf-8")
    seen = list[object]()

    def create_session(settings: etl.Settings) -> object:
        seen.extend([settings.input, settings.output, settings.catalog, settings.aws["AWS_ACCESS_KEY_ID"]])
        return SimpleNamespace(stop=lambda: seen.append("stopped"))

    monkeypatch.setattr(laptop, "create_session", create_session)
    monkeypatch.setattr(engines, "spark_query", lambda _, *given: seen.extend(given))
    with pytest.raises(BrokenPipeError), engines.spark_engine("lake", "my.cfg", "glue.sparkify"):
        raise BrokenPipeError
    uri = f"file://{tmp_path}/lake"
    assert seen == [uri, uri, "glue.sparkify", "KEY", uri, "glue.sparkify", "stopped"]


def test_who_finds_no_tables_is_told_of_the_catalog(session: SparkSession, tmp_path: Path) -> None:
    lake = tmp_path / "my lake"
    open_catalog(session, lake)
    uri, command = f"file://{lake}", f"write them with: python etl.py --output 'file://{lake}'"
    for catalog, message in {
        None: f"{uri} holds no tables (Spark finds Iceberg's by --catalog); {command}",
        "lake.a": f"lake.a in {uri} holds no tables; {command} --catalog lake.a",
    }.items():
        with pytest.raises(engines.LakeError, match=f"^{re.escape(message)}$"):
            engines.spark_query(session, uri, catalog)


def test_duckdb_reads_a_bucket_with_dots_by_its_path_and_by_fips_where_boto3_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf = {"fs.s3a.bucket.my.lake.endpoint.region": "eu-west-1", "fs.s3a.endpoint.fips": "true"}
    monkeypatch.setattr(laptop, "s3a_access", lambda *_: (conf, 0))
    with duckdb.connect() as connection:
        engines.open_s3(connection, "s3a://my.lake/p", None)
        secrets = str(connection.sql("FROM duckdb_secrets()").fetchall())
        assert "url_style=path" in secrets
        assert "endpoint=s3-fips.eu-west-1.amazonaws.com" in secrets
    conf["fs.s3a.endpoint"] = "https://minio.corp"
    with duckdb.connect() as connection:
        assert engines.open_s3(connection, "s3a://my.lake/p", None)["endpoint_url"] is None  # which Glue has not


def test_duckdb_has_the_credentials_of_the_configuration_and_none_for_a_public_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    config = tmp_path / "my.cfg"
    config.write_text("[AWS]\n" + "".join(f"{key} = KEY{number}\n" for number, key in enumerate(keys)), "utf-8")
    conf = {"fs.s3a.bucket.lakes.endpoint.region": "eu-west-1"}

    def s3a_access(_: object, aws: dict[str, str]) -> tuple[dict[str, str], int]:
        given = zip(("access.key", "secret.key", "session.token"), keys, strict=True)
        return conf | {f"fs.s3a.{name}": aws[key] for name, key in given}, 0

    monkeypatch.setattr(laptop, "s3a_access", s3a_access)
    for parts in ({"key_id=KEY0", "secret=redacted", "session_token=redacted"}, set[str]()):
        with duckdb.connect() as connection:
            engines.open_s3(connection, "s3a://lakes/p", str(config))
            secret = str(connection.sql("FROM duckdb_secrets()").fetchall()[0][-1])
        assert {part for part in secret.split(";") if re.match("key_id|secret|session", part)} == parts
        conf["fs.s3a.bucket.lakes.aws.credentials.provider"] = "Anonymous"


def test_a_reader_that_goes_away_is_no_error(sample_lake: str, unread: int) -> None:
    command = [sys.executable, str(engines.FOLDER / "show.py"), "--lake", sample_lake, "at_a_glance"]
    done = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


def test_both_engines_read_a_lake_without_plays_and_an_id_of_digits_alike(
    session: SparkSession, lake: Path, capsys: Capture
) -> None:
    rewrite(lake, "songplays", "SELECT *", "LIMIT 0")
    rewrite(lake, "songs", "SELECT * EXCLUDE (artist_id)", "WHERE year = 1994 LIMIT 1", to="artist_id=007")
    sql = "SELECT artist_id, year, (SELECT COUNT(*) FROM songplays) AS plays FROM songs"
    with engines.duckdb_engine(str(lake)) as query:
        answers = [query(sql)[1], engines.spark_query(session, str(lake))(sql)[1]]
    assert [list(map(tuple, answer)) for answer in answers] == [[("007", 1994, 0)]] * 2
    assert show.main(["--lake", str(lake)]) == 0
    assert f"## {QUESTIONS['plays_by_hour'].text}\n\nNo rows.\n" in capsys.readouterr().out


def test_duckdb_takes_no_folder_above_the_lake_for_a_column(lake: Path, session: SparkSession, tmp_path: Path) -> None:
    above = Path(shutil.copytree(lake, tmp_path / "year=2024" / "level=gold" / "lake"))
    null = above / "songs" / f"year={etl.NULL_FOLDER}"
    (above / "songs" / "year=0").rename(null)
    sql = "SELECT year, COUNT(*) FROM songs GROUP BY year ORDER BY year NULLS FIRST"
    with engines.duckdb_engine(str(above)) as query:
        answer = query(sql)[1]
        assert answer == [tuple(row) for row in engines.spark_query(session, str(above))(sql)[1]]
        assert (None, 39) in answer and len(answer) == 24
    null.rename(above / "songs" / "year=0")
    assert check.main(["--lake", str(above)]) == 0


def test_copies_of_a_song_and_plays_without_a_level_split_no_answer(lake: Path, capsys: Capture) -> None:
    """Half of the matched plays name another artist, and who upgrades has no level at the play before."""
    level = {step: f"{step}(level) OVER (PARTITION BY user_id ORDER BY start_time, session_id, songplay_id)"
             for step in ("LAG", "LEAD")}  # fmt: skip
    lost = f"level = 'free' AND {level['LAG']} = 'free' AND {level['LEAD']} = 'paid'"
    other = "song_id IS NOT NULL AND songplay_id < '8'"
    rewrite(
        lake,
        "songplays",
        f"SELECT * REPLACE (CASE WHEN NOT coalesce({lost}, false) THEN level END AS level, "
        f"CASE WHEN {other} THEN MAX(artist_id) OVER () ELSE artist_id END AS artist_id)",
    )
    assert check.main(["--lake", str(lake)]) == 1
    different = different_in(capsys.readouterr().out)
    assert different > {"top_artists", "paid_and_free_by_day"}
    assert not different & {"top_songs", "level_changes_by_day", "plays_before_upgrade"}


def test_the_readme_is_the_answers_to_all_questions(sample_lake: str) -> None:
    command = [sys.executable, str(engines.FOLDER / "show.py"), "--lake", sample_lake, "--markdown"]
    made = subprocess.check_output(command, text=True, env=os.environ | {"TZ": "America/New_York"})
    assert made == (engines.FOLDER / "README.md").read_text("utf-8")


def test_the_questions_that_are_named_are_answered_in_that_order(sample_lake: str, capsys: Capture) -> None:
    names = ["plays_by_gender", "at_a_glance", "devices"]
    assert show.main(["--lake", sample_lake, *names]) == 0
    assert re.findall("^## (.*)", capsys.readouterr().out, re.M) == [QUESTIONS[name].text for name in names]


def test_a_table_has_bars_to_scale_and_says_null_and_what_it_leaves_out() -> None:
    rows = [(date(2018, 11, 1), "a|b", 4, Decimal("1.0")), (None, "c", 2, None)]
    few = show.as_table((["day", "name", "plays", "share"], rows), "plays").splitlines()
    assert few[2] == f"| 2018-11-01 | a\\|b |     4 |   1.0 | {'█' * 20} |"
    assert few[3] == f"| –          | c    |     2 |     – | {'█' * 10:<20} |"
    none = show.as_table((["plays"], [(None,), (0,)]), "plays").splitlines()
    assert none[2:] == ["|     – |         |", "|     0 |         |"]
    many = show.as_table((["plays"], [(number,) for number in range(40)]), "")
    assert many.endswith("\n\n40 rows, 30 in the middle left out.")


def test_wrong_values_show_in_the_questions_that_ask_for_them(lake: Path, capsys: Capture) -> None:
    rewrite(lake, "users", "SELECT * REPLACE (CASE user_id WHEN '62' THEN 'free' ELSE level END AS level)")
    rewrite(lake, "time", "SELECT * REPLACE (CAST((hour + 1) % 24 AS INT) AS hour)")
    assert check.main(["--lake", str(lake)]) == 1
    out = capsys.readouterr().out
    assert different_in(out) == {"most_active_users", "plays_by_hour", "plays_by_weekday_and_hour"}
    lines = out.splitlines()
    assert any(line.startswith("    -") for line in lines) and any(line.startswith("    +") for line in lines)


def test_check_tells_other_names_another_order_a_row_more_and_a_query_that_fails(capsys: Capture) -> None:
    names = {question.sql: name for name, question in QUESTIONS.items()}
    marks = json.loads((engines.FOLDER / "expected" / "sample.json").read_text("utf-8"))

    def query(sql: str) -> engines.Answer:
        if sql not in names:
            return ["song", "play"], [[marks["song_id"], marks["songplay_id"]]]
        columns, *rows = check.read_expected(names[sql])
        if names[sql] == "at_a_glance":
            raise engines.LakeError("no such column")
        if names[sql] == "plays_by_hour":
            columns.reverse()
        if names[sql] == "top_songs":
            rows.reverse()
        if names[sql] == "devices":
            rows.append(["new"])
        return columns, rows

    assert check.check(query, Namespace(lake="lake")) == 1
    out = capsys.readouterr().out
    assert different_in(out) == {"plays_by_hour", "top_songs", "devices"}
    assert "FAILED       at_a_glance: no such column\n" in out and "\n    +new\n" in out
    assert re.search(r"\n    \.\.\. \d+ more lines\n", out)
    assert out.endswith(f"{len(QUESTIONS) - 4} of {len(QUESTIONS)} queries as expected\n")


def test_of_several_lakes_in_a_folder_it_asks_which(lake: Path, capsys: Capture) -> None:
    metadata = lake / "sparkify" / "songplays" / "metadata"
    metadata.mkdir(parents=True)
    (metadata / "v1.metadata.json").touch()
    assert check.main(["--lake", str(lake)]) == 1
    which = "--catalog NAME.sparkify, --catalog '' (folders of parquet)"
    assert capsys.readouterr().err.endswith(f"holds several lakes; say which: {which}\n")
    assert check.main(["--lake", str(lake), "--catalog", ""]) == 0


def test_another_lake_has_nothing_to_compare(lake: Path, capsys: Capture) -> None:
    first = json.loads((engines.FOLDER / "expected" / "sample.json").read_text("utf-8"))["songplay_id"]
    rewrite(lake, "songplays", "SELECT *", f"WHERE songplay_id <> '{first}'")
    assert check.main(["--lake", str(lake)]) == 2
    assert capsys.readouterr().out.startswith(f"nothing to compare: {lake} is not a lake of the sample")
    assert check.check(lambda _: ([], [["another song", first]]), Namespace(lake=lake)) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "holds no tables"),
        (lambda lake: shutil.rmtree(lake / "artists"), "has no table artists"),
        (lambda lake: next((lake / "artists").glob("*.parquet")).unlink(), "has no table artists"),
        (lambda lake: rewrite(lake, "artists", "SELECT artist_id"), "cannot read table artists: .*name"),
        (lambda lake: (lake / "artists" / "a.parquet").write_bytes(b"no"), "cannot read table artists: "),
    ],
)
def test_what_cannot_be_read_is_told(
    spoil: Callable[[Path], object], message: str, lake: Path, session: SparkSession
) -> None:
    spoil(lake)
    with pytest.raises(engines.LakeError, match=message):
        engines.spark_query(session, str(lake))
    with pytest.raises(engines.LakeError, match=message), engines.duckdb_engine(str(lake)):
        pass


def test_a_query_that_fails_is_one_line_on_both_engines(sample_lake: str, session: SparkSession) -> None:
    with engines.duckdb_engine(sample_lake) as query:
        for ask in (query, engines.spark_query(session, sample_lake)):
            with pytest.raises(engines.LakeError, match=r"^[^\n]*\bnix\b[^\n]*$"):
                ask("SELECT nix FROM songs")


def test_an_error_is_one_line(sample_lake: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert show.main(["--lake", sample_lake, "devices", "nix"]) == 1
    assert capsys.readouterr().err.startswith("show.py: error: no question nix; there are at_a_glance, devices, ")
    for engine, catalog in {"duckdb": "glue", "spark": "glue.a.b"}.items():
        assert show.main(["--lake", sample_lake, "--catalog", catalog, "--engine", engine]) == 1
        assert f"CATALOG is '{catalog}'; give a catalog and a lower-case namespace" in capsys.readouterr().err
    for bucket, endpoint in {"lakes": "localhost:9000", "My_B!": "http://localhost:9"}.items():
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert show.main(["--lake", f"s3://{bucket}/x"]) == 1  # botocore has two lines for the second
        assert re.fullmatch(r"show\.py: error: [^\n]*[Ii]nvalid[^\n]*\n", capsys.readouterr().err)
