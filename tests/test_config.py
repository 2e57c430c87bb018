"""dl.cfg and the command line: every rule, without Spark."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from pyspark import SparkFiles

import etl
import laptop

SECRET = "wJalr%XUtn/Fe%(MI)s+K7MDENG"
KEYS = f"[AWS]\nAWS_ACCESS_KEY_ID = AKIA\nAWS_SECRET_ACCESS_KEY = {SECRET}\nAWS_SESSION_TOKEN = %%{SECRET}\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder and a home of its own, and no Spark for a run that is not refused."""

    def go_on(settings: etl.Settings, verbose: bool) -> None:
        raise AssertionError(f"not refused: {settings}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(laptop, "create_session", go_on)
    monkeypatch.setattr(etl, "run", go_on)


def write(text: str | bytes) -> str:
    """Writes a dl.cfg in a folder of its own; its path."""
    path = Path("conf", "dl.cfg").absolute()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def settings_of(*arguments: str) -> etl.Settings:
    return etl.make_settings(etl.parse_options([*arguments]))


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a run with wrong configuration prints; it exits with 2."""
    assert etl.main([*arguments]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"etl\.py: error: [^\n]+\n", error)
    return error


# What is read


def test_dl_cfg_as_shipped_has_every_key_with_its_default() -> None:
    assert etl.read_config(str(ROOT / "dl.cfg")) == etl.read_config(None) == etl.DEFAULTS
    keys = re.findall(r"^(\w+) *=", (ROOT / "dl.cfg").read_text(), re.MULTILINE)
    assert sorted(keys) == sorted(key for section in etl.DEFAULTS.values() for key in section)


def test_what_dl_cfg_leaves_out_has_its_default_and_keys_may_be_in_any_case() -> None:
    changed = etl.DEFAULTS | {"LIMITS": {"MAX_REJECTED": "0.5"}}
    text = "[LIMITS]\nmax_rejected = 0.5\n"
    assert etl.read_config(write(text)) == etl.read_config(write(f"\ufeff{text}")) == changed


def test_a_percent_sign_in_a_secret_is_one_and_settings_do_not_show_it() -> None:
    given = settings_of("--config", write(KEYS))
    assert (given.aws["AWS_SECRET_ACCESS_KEY"], given.aws["AWS_SESSION_TOKEN"]) == (SECRET, f"%%{SECRET}")
    assert SECRET not in repr(given)


def test_command_line_over_dl_cfg_over_defaults(tmp_path: Path) -> None:
    config = write("[PATHS]\nINPUT_DATA = mine\n[LIMITS]\nMAX_REJECTED = 0.2\n[PARTITIONS]\nTIME = year\n")
    given = settings_of("--config", config)
    assert given.input == f"file://{tmp_path}/conf/mine"
    assert given.output == f"file://{tmp_path}/conf/lake"  # the default, in dl.cfg's folder
    assert (given.max_rejected, given.report) == (0.2, None)
    assert given.partitions == {"songs": ("year",), "time": ("year",), "songplays": ("year", "month")}
    options = ("--input", "yours", "--output", "/out/", "--report", "r.json", "--max-rejected", "0")
    given = settings_of("--config", config, *options)
    assert (given.input, given.output, given.max_rejected) == (f"file://{tmp_path}/yours", "file:///out", 0)
    assert given.report == f"file://{tmp_path}/r.json"
    assert settings_of("--max-rejected", "1").max_rejected == 1
    config = write("[LAKE]\nCATALOG = glue.sparkify\nKEEP_DAYS = 30\n")
    assert (given.catalog, given.keep_days, settings_of("--config", config).catalog) == ("", 7, "glue.sparkify")
    given = settings_of("--config", config, "--catalog", "lake.mine")
    assert (given.catalog, given.keep_days) == ("lake.mine", 30)


def test_dl_cfg_here_over_the_one_beside_etl_and_the_first_line_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settings_of().input == f"file://{ROOT}/data"
    Path("dl.cfg").write_text("[PATHS]\nINPUT_DATA = mine\n")
    assert settings_of().input == f"file://{tmp_path}/mine"
    assert capsys.readouterr().out == f"configuration: {ROOT}/dl.cfg\nconfiguration: {tmp_path}/dl.cfg\n"


HANDED: dict[str, tuple[dict[str, str], str | None, str]] = {
    "by --files": ({"spark.files": "file:/a.txt,file:{0}/a%20b/dl.cfg"}, None, "a b/dl.cfg"),
    "by YARN's --files, with another name": ({"spark.yarn.dist.files": "file:{0}/mine.cfg#dl.cfg"}, None, "mine.cfg"),
    "in cluster mode": (
        {"spark.yarn.dist.files": "s3://b/dl.cfg", "spark.submit.deployMode": "cluster"},
        None,
        "dl.cfg",
    ),
    "by another platform": ({"spark.files": "s3://b/dl.cfg"}, None, "files/dl.cfg"),
    "and another given": ({"spark.files": "file:{0}/a%20b/dl.cfg"}, "mine.cfg", "mine.cfg"),
    "and given by its name there": ({"spark.files": "s3://b/your.cfg"}, "your.cfg", "files/your.cfg"),
    "without one": ({}, None, "dl.cfg"),
}


@pytest.mark.parametrize("name", HANDED)
def test_under_spark_submit_the_dl_cfg_that_was_handed_over_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for file in ("dl.cfg", "mine.cfg", "a b/dl.cfg", "files/dl.cfg", "files/your.cfg"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    given, option, found = HANDED[name]
    conf = {key: value.format(tmp_path) for key, value in given.items()}
    spark: Any = SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: conf))
    monkeypatch.setattr(SparkFiles, "get", lambda name: str(tmp_path / "files" / name))
    assert etl.find_config(option, spark) == str(tmp_path / found)
    if given:
        for file in (found, f"files/{Path(found).name}"):
            (tmp_path / file).unlink(missing_ok=True)
        with pytest.raises(etl.ConfigError, match="no configuration file"):
            etl.find_config(option, spark)


URIS = {
    "s3://bucket/a/": "s3a://bucket/a",
    "s3n://bucket/a": "s3a://bucket/a",
    "s3a://bucket": "s3a://bucket",
    "s3a://bucket/": "s3a://bucket",
    "hdfs://node:8020/a/": "hdfs://node:8020/a",
    "file:///a": "file:///a",
    "file:/a/b/": "file:///a/b",
    "/a/../b//c/": "file:///b/c",
    "~/a": "file://{home}/a",
}


@pytest.mark.parametrize("given", URIS)
def test_paths_become_uris(tmp_path: Path, given: str) -> None:
    uri = URIS[given].format(home=tmp_path / "home")
    assert settings_of("--input", given).input == uri
    assert settings_of("--config", write(f"[PATHS]\nINPUT_DATA = {given}\n")).input == uri


def test_a_relative_path_is_below_dl_cfg_or_where_the_command_is_given(tmp_path: Path) -> None:
    config = write("[PATHS]\nINPUT_DATA = ../in\nOUTPUT_DATA = out#1\n")
    given = settings_of("--config", config)
    assert (given.input, given.output) == (f"file://{tmp_path}/in", f"file://{tmp_path}/conf/out#1")
    assert settings_of("--config", config, "--output", "out").output == f"file://{tmp_path}/out"


@pytest.mark.parametrize(
    ("text", "columns"),
    [("year, artist_id", ("year", "artist_id")), ("ARTIST_ID", ("artist_id",)), ("", ()), (",", ())],
)
def test_partitions(text: str, columns: tuple[str, ...]) -> None:
    assert settings_of("--config", write(f"[PARTITIONS]\nSONGS = {text}\n")).partitions["songs"] == columns


# What is refused, by name

WRONG: dict[str, tuple[str | bytes, list[str]]] = {
    "unknown section": ("[PATH]\nINPUT_DATA = a\n", ["[PATH]", "PATHS", "PARTITIONS"]),
    "settings in DEFAULT": ("[DEFAULT]\nINPUT_DATA = a\n", ["DEFAULT"]),
    "unknown key": ("[PATHS]\nINPUT = a\n", ["INPUT ", "[PATHS]", "INPUT_DATA"]),
    "rest of a secret": (
        "[AWS]\nAWS_SESSION_TOKEN =\nIQoJb3JpZ2Lux2VjEAA/of+it==\n",
        ["unknown key (not shown) in [AWS]"],
    ),
    "rest of a secret, letters alone": (
        f"[AWS]\nAWS_SESSION_TOKEN =\n{'IQoJb' * 8}==\n",
        ["unknown key (not shown) in [AWS]"],
    ),
    "key of another section": ("[AWS]\nINPUT_DATA = a\n", ["INPUT_DATA", "[AWS]"]),
    "empty input": ("[PATHS]\nINPUT_DATA =\n", ["INPUT_DATA", "empty"]),
    "empty output": ("[PATHS]\nOUTPUT_DATA =   \n", ["OUTPUT_DATA", "empty"]),
    "quotes": ('[PATHS]\nOUTPUT_DATA = "lake"\n', ["OUTPUT_DATA", "[PATHS]", "quotes"]),
    "quotes around a URI": ("[PATHS]\nOUTPUT_DATA = 's3a://bucket/lake'\n", ["OUTPUT_DATA", "quotes"]),
    "comment behind a path": ("[PATHS]\nOUTPUT_DATA = lake  # mine\n", ["OUTPUT_DATA", "comment"]),
    "comment behind columns": ("[PARTITIONS]\nSONGS = year ; all\n", ["SONGS", "comment"]),
    "indented key": ("[PATHS]\nINPUT_DATA = data\n  OUTPUT_DATA = lake\n", ["INPUT_DATA", "indented"]),
    "quoted secret": (f'[AWS]\nAWS_SECRET_ACCESS_KEY = "{SECRET}"\n', ["AWS_SECRET_ACCESS_KEY", "quotes"]),
    "key twice": (f"{KEYS}AWS_SECRET_ACCESS_KEY = {SECRET}\n", ["line 5", "duplicate"]),
    "section twice": ("[AWS]\n[PATHS]\n[AWS]\n", ["line 3", "duplicate"]),
    "no section": (f"AWS_SECRET_ACCESS_KEY = {SECRET}\n", ["line 1", "[SECTION]"]),
    "no equals sign": (f"[AWS]\nAWS_SECRET_ACCESS_KEY {SECRET}\n", ["line 2", "KEY = value"]),
    "not UTF-8": (b"[PATHS]\nINPUT_DATA = \xff\xfe\n", ["utf-8"]),
    "bad partition column": ("[PARTITIONS]\nSONGS = yaer\n", ["SONGS", "yaer", "year"]),
    "the table's own key": ("[PARTITIONS]\nSONGS = song_id\n", ["SONGS", "song_id"]),
    "partition column twice": ("[PARTITIONS]\nTIME = year, YEAR\n", ["TIME", "year, YEAR", "once"]),
    "column of another table": ("[PARTITIONS]\nSONGPLAYS = weekday\n", ["SONGPLAYS", "weekday"]),
    **{
        f"catalog {name!r}": (f"[LAKE]\nCATALOG = {name}\n", ["CATALOG", name, "glue.sparkify"])
        for name in ("glue", "glue.Spark", "glue.a.b", "glue.a-b", "glüe.a", ".a", "g.a; DROP")
    },
    **{
        f"{days!r} days": (f"[LAKE]\nKEEP_DAYS = {days}\n", ["KEEP_DAYS", days])
        for days in ("0", "-1", "1.5", "100000", "")
    },
    **{
        f"share {share!r}": (f"[LIMITS]\nMAX_REJECTED = {share}\n", ["MAX_REJECTED", share])
        for share in ("1.01", "-0.1", "1%", "nan", "")
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_configuration_is_named_and_no_secret_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, words = WRONG[name]
    error = error_of(capsys, "--config", write(text))
    assert [word for word in words if word not in error] == []
    if isinstance(text, str) and "AWS" not in text:
        error += error_of(capsys, "--config", write(KEYS + text))
    assert SECRET not in error and SECRET.upper() not in error


@pytest.mark.parametrize("place", ["http://x.org/in", "https://bucket.s3.amazonaws.com/in", "S3A://bucket/in", "s3a:/in", "s3a:///in", "s3:in", "ftp://x/in", "file:in", "FILE:///in", "hdfs:///in"])  # fmt: skip
@pytest.mark.parametrize("option", ["--input", "--output", "--report"])
def test_a_place_that_is_none_is_refused_at_once(capsys: pytest.CaptureFixture[str], place: str, option: str) -> None:
    assert place in error_of(capsys, option, place)


@pytest.mark.parametrize("place", ["hdfs:///raw", "hdfs://node/raw", "viewfs:/raw", "s3://bucket", "s3a://bucket/raw"])
def test_under_spark_submit_the_platforms_own_places_stay_as_they_are(place: str) -> None:
    a_session: Any = object()  # which is not asked
    assert etl.to_uri(f"{place}/", "/here", a_session) == place
    for wrong in ("s3:///raw", "https://x.org/raw"):
        with pytest.raises(etl.ConfigError, match=wrong):
            etl.to_uri(wrong, "/here", a_session)


def test_under_spark_submit_a_relative_path_is_below_the_users_home_on_the_clusters_file_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a_session: Any = object()  # which is not asked
    homes = {"hdfs://node:8020": "hdfs://node:8020/user/me/raw", "file:///": "file:/here/raw"}
    for root, place in homes.items():
        found = SimpleNamespace(getUri=lambda root=root: root), SimpleNamespace(toString=lambda place=place: place)
        monkeypatch.setattr(etl, "open_path", lambda spark, path, found=found: found)
        assert etl.to_uri("raw", "/here", a_session) == place.replace("file:/", "file:///")


INSIDE = [
    ("in", "in"), ("in", "in/lake"), ("all/in", "all"), ("in", "in/../in/lake/"), ("in", "link-to-in/lake"),
    ("link-to-in", "in"), ("s3a://bucket", "s3a://bucket/lake"), ("s3://bucket/in", "s3a://bucket/in/lake"),
    ("s3a://bucket/lake/in", "s3n://bucket/lake"), ("file:///in", "/in/lake"),
    ("in", "/"), ("/", "lake"),
]  # fmt: skip
BESIDE = [("in", "in2"), ("s3a://bucket/in", "s3a://bucket/in-lake"), ("s3a://one/in", "s3a://two/in")]


@pytest.mark.parametrize(("source", "output"), INSIDE + BESIDE)
def test_input_and_output_lie_side_by_side(capsys: pytest.CaptureFixture[str], source: str, output: str) -> None:
    Path("in").mkdir()
    Path("link-to-in").symlink_to("in")
    if (source, output) in BESIDE:
        assert settings_of("--input", source, "--output", output).output.endswith(output)
    else:
        assert "inside one another" in error_of(capsys, "--input", source, "--output", output)


def test_under_spark_submit_one_bucket_by_two_schemes_is_one_place() -> None:
    """Where s3:// and s3a:// stay as they are given."""
    spark: Any = SimpleNamespace(sparkContext=SimpleNamespace(getConf=dict))
    for source, output in (("s3://b/in", "s3a://b/in/lake"), ("s3a://b/lake/in", "s3://b/lake")):
        with pytest.raises(etl.ConfigError, match="inside one another"):
            etl.make_settings(etl.parse_options(["--input", source, "--output", output]), spark)


@pytest.mark.parametrize(
    "report",
    [
        "in/log_data/a.json",
        "link-to-in/r.json",
        "lake/songs/r.json",
        "lake/_rejected/r.json",
        "lake/_lake",
        "in",
        "lake",
        ".",
    ],
)
def test_a_report_among_the_files_of_the_input_or_of_a_table_is_refused(
    capsys: pytest.CaptureFixture[str], report: str
) -> None:
    Path("in").mkdir()
    Path("link-to-in").symlink_to("in")
    assert report in error_of(capsys, "--input", "in", "--output", "lake", "--report", report)
    assert settings_of("--input", "in", "--output", "lake", "--report", "lake/r.json").report


def test_a_report_among_icebergs_tables_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--output", "lake", "--report", "lake/sparkify/songs/r.json")
    assert "would lie among the files" in error_of(capsys, *options, "--catalog", "glue.sparkify")
    assert settings_of(*options, "--catalog", "glue.other").report


@pytest.mark.parametrize("report", ["s3://in/raw/r.json", "s3a://out/lake/songs/r.json", "s3n://out/lake/_lake"])
def test_a_report_on_s3_is_refused_there_by_whatever_scheme(capsys: pytest.CaptureFixture[str], report: str) -> None:
    options = ("--input", "s3a://in/raw", "--output", "s3://out/lake", "--report")
    assert "would lie among the files" in error_of(capsys, *options, report)
    assert settings_of(*options, "s3://out/lake/r.json").report == "s3a://out/lake/r.json"


# The command line


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        etl.main(["--help"])
    usage, explained = re.sub(r"\s+", " ", capsys.readouterr().out).split("options:")
    for option in ("--config", "--input", "--output", "--report", "--catalog", "--max-rejected", "--verbose"):
        assert option in usage and re.search(rf"{option}(?: [A-Z]+)? [a-z]+ [\w']+", explained), option
    for words in ("0 done", "1 the job failed", "2 wrong usage or configuration", "130 interrupted"):
        assert words in explained


# An empty value is not the default: "$UNSET" on a command line must not make the job go on with another folder
WRONG_USAGE: dict[tuple[str, ...], str] = {
    **{(word,): word for word in ("--inputs", "--verb", "--nonsense", "data", "--report")},
    **{(f"--max-rejected={share}",): repr(share) for share in ("-1", "2", "1%", "nan", "a lot")},
    **{
        (f"--{option}", ""): f"--{option} is empty"
        for option in ("input", "output", "config", "report", "catalog", "max-rejected")
    },
    ("--config", "none.cfg"): "no configuration file none.cfg",
    ("--config", ".."): "no configuration file ..",
}


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_is_named(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert WRONG_USAGE[arguments] in error_of(capsys, *arguments)
