"""dl.cfg and the command line: every rule, without Spark."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT

import etl

SECRET = "wJalr%XUtn/Fe%(MI)s+K7MDENG"
AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder of its own, and no Spark for a run that is not refused; etl.main's signal handler is taken back."""

    def go_on(settings: etl.Settings, verbose: bool = False) -> None:
        raise AssertionError(f"not refused: {settings}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(etl, "create_session", go_on)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Writes a dl.cfg in a folder of its own; its path."""

    def to_file(text: str | bytes) -> str:
        path = tmp_path / "conf" / "dl.cfg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return to_file


def settings_of(*arguments: str) -> etl.Settings:
    return etl.make_settings(etl.parse_options([*arguments]))


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a run with wrong configuration prints; it exits with 2."""
    assert etl.main([*arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"etl\.py: error: [^\n]+\n", err)
    return err


# What is read


def test_dl_cfg_as_shipped_has_every_key_with_its_default() -> None:
    assert etl.read_config(str(ROOT / "dl.cfg")) == {
        "AWS": dict.fromkeys(AWS_KEYS, ""),
        "PATHS": {"INPUT_DATA": "data", "OUTPUT_DATA": "lake"},
        "PARTITIONS": {"SONGS": "year", "TIME": "year, month", "SONGPLAYS": "year, month"},
        "LIMITS": {"MAX_REJECTED": "0.01"},
    }
    keys = re.findall(r"^(\w+) *=", (ROOT / "dl.cfg").read_text(), re.MULTILINE)
    assert sorted(keys) == sorted(key for section in etl.DEFAULTS.values() for key in section)


def test_what_dl_cfg_leaves_out_has_its_default(write: Callable[[str], str]) -> None:
    assert etl.read_config(write("[LIMITS]\nMAX_REJECTED = 0.5\n")) == etl.DEFAULTS | {
        "LIMITS": {"MAX_REJECTED": "0.5"}
    }
    assert etl.read_config(write("")) == etl.read_config(None) == etl.DEFAULTS


def test_a_percent_sign_in_a_secret_is_a_percent_sign(write: Callable[[str], str]) -> None:
    config = write(
        f"[AWS]\nAWS_ACCESS_KEY_ID = AKIA\nAWS_SECRET_ACCESS_KEY = {SECRET}\nAWS_SESSION_TOKEN = %%{SECRET}\n"
    )
    aws = etl.read_config(config)["AWS"]
    assert (aws["AWS_SECRET_ACCESS_KEY"], aws["AWS_SESSION_TOKEN"]) == (SECRET, f"%%{SECRET}")
    assert settings_of("--config", config).aws["AWS_SECRET_ACCESS_KEY"] == SECRET


def test_keys_may_be_in_any_case(write: Callable[[str], str]) -> None:
    assert etl.read_config(write("[LIMITS]\nmax_rejected = 0\n"))["LIMITS"] == {"MAX_REJECTED": "0"}


def test_settings_do_not_show_the_secret(write: Callable[[str], str]) -> None:
    config = write(f"[AWS]\nAWS_ACCESS_KEY_ID = AKIA\nAWS_SECRET_ACCESS_KEY = {SECRET}\n")
    assert SECRET not in repr(settings_of("--config", config))


def test_command_line_over_dl_cfg_over_defaults(write: Callable[[str], str], tmp_path: Path) -> None:
    config = write("[PATHS]\nINPUT_DATA = mine\n[LIMITS]\nMAX_REJECTED = 0.2\n[PARTITIONS]\nTIME = year\n")
    given = settings_of("--config", config)
    assert given.input == f"file://{tmp_path}/conf/mine"
    assert given.output == f"file://{tmp_path}/conf/lake"  # the default, in dl.cfg's folder
    assert given.max_rejected == 0.2
    assert given.partitions == {"songs": ("year",), "time": ("year",), "songplays": ("year", "month")}
    given = settings_of("--config", config, "--input", "yours", "--output", "/out/", "--max-rejected", "0")
    assert (given.input, given.output, given.max_rejected) == (f"file://{tmp_path}/yours", "file:///out", 0)


def test_dl_cfg_here_over_the_one_beside_etl(tmp_path: Path) -> None:
    assert settings_of().input == f"file://{ROOT}/data"
    Path("dl.cfg").write_text("[PATHS]\nINPUT_DATA = mine\n")
    assert settings_of().input == f"file://{tmp_path}/mine"


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("s3://bucket/a/", "s3a://bucket/a"),
        ("s3n://bucket/a", "s3a://bucket/a"),
        ("s3a://bucket", "s3a://bucket"),
        ("hdfs://node:8020/a/", "hdfs://node:8020/a"),
        ("file:///a", "file:///a"),
        ("/a/../b//c/", "file:///b/c"),
    ],
)
def test_paths_become_uris(write: Callable[[str], str], given: str, uri: str) -> None:
    assert settings_of("--input", given).input == uri
    assert settings_of("--config", write(f"[PATHS]\nINPUT_DATA = {given}\n")).input == uri


def test_a_relative_path_is_below_dl_cfg_or_where_the_command_is_given(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    config = write("[PATHS]\nINPUT_DATA = ../in\nOUTPUT_DATA = out\n")
    given = settings_of("--config", config)
    assert (given.input, given.output) == (f"file://{tmp_path}/in", f"file://{tmp_path}/conf/out")
    assert settings_of("--config", config, "--output", "out").output == f"file://{tmp_path}/out"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("SONGS = year, artist_id", ("year", "artist_id")),
        ("SONGS = ARTIST_ID", ("artist_id",)),
        ("SONGS =", ()),
        ("SONGS = ,", ()),
    ],
)
def test_partitions(write: Callable[[str], str], text: str, columns: tuple[str, ...]) -> None:
    assert settings_of("--config", write(f"[PARTITIONS]\n{text}\n")).partitions["songs"] == columns


# What is refused, by name

WRONG: dict[str, tuple[str | bytes, list[str]]] = {
    "unknown section": ("[PATH]\nINPUT_DATA = a\n", ["[PATH]", "PATHS", "PARTITIONS"]),
    "settings in DEFAULT": ("[DEFAULT]\nINPUT_DATA = a\n", ["DEFAULT"]),
    "unknown key": ("[PATHS]\nINPUT = a\n", ["INPUT ", "[PATHS]", "INPUT_DATA"]),
    "key of another section": ("[AWS]\nINPUT_DATA = a\n", ["INPUT_DATA", "[AWS]"]),
    "empty input": ("[PATHS]\nINPUT_DATA =\n", ["INPUT_DATA", "empty"]),
    "empty output": ("[PATHS]\nOUTPUT_DATA =   \n", ["OUTPUT_DATA", "empty"]),
    "key without secret": ("[AWS]\nAWS_ACCESS_KEY_ID = AKIA\n", ["AWS_SECRET_ACCESS_KEY"]),
    "secret without key": (f"[AWS]\nAWS_SECRET_ACCESS_KEY = {SECRET}\n", ["AWS_ACCESS_KEY_ID"]),
    "token without key": (f"[AWS]\nAWS_SESSION_TOKEN = {SECRET}\n", ["AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"]),
    "key twice": (
        f"[AWS]\nAWS_SECRET_ACCESS_KEY = {SECRET}\nAWS_SECRET_ACCESS_KEY = {SECRET}\n",
        ["line 3", "duplicate"],
    ),
    "section twice": ("[AWS]\n[PATHS]\n[AWS]\n", ["line 3", "duplicate"]),
    "no section": (f"AWS_SECRET_ACCESS_KEY = {SECRET}\n", ["line 1", "[SECTION]"]),
    "no equals sign": (f"[AWS]\nAWS_SECRET_ACCESS_KEY {SECRET}\n", ["line 2", "KEY = value"]),
    "not UTF-8": (b"[PATHS]\nINPUT_DATA = \xff\xfe\n", ["utf-8"]),
    "bad partition column": ("[PARTITIONS]\nSONGS = yaer\n", ["SONGS", "yaer", "year"]),
    "the table's own key": ("[PARTITIONS]\nSONGS = song_id\n", ["SONGS", "song_id"]),
    "partition column twice": ("[PARTITIONS]\nTIME = year, YEAR\n", ["TIME", "year, YEAR", "once"]),
    "column of another table": ("[PARTITIONS]\nSONGPLAYS = weekday\n", ["SONGPLAYS", "weekday"]),
    "share above one": ("[LIMITS]\nMAX_REJECTED = 1.01\n", ["MAX_REJECTED", "1.01"]),
    "share below zero": ("[LIMITS]\nMAX_REJECTED = -0.1\n", ["MAX_REJECTED", "-0.1"]),
    "share in percent": ("[LIMITS]\nMAX_REJECTED = 1%\n", ["MAX_REJECTED", "1%"]),
    "share not a number": ("[LIMITS]\nMAX_REJECTED = nan\n", ["MAX_REJECTED", "nan"]),
    "empty share": ("[LIMITS]\nMAX_REJECTED =\n", ["MAX_REJECTED"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_configuration_is_named(
    name: str, write: Callable[[str | bytes], str], capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = WRONG[name]
    path = write(text)
    error = error_of(capsys, "--config", path)
    for word in words if "[PARTITIONS]" in str(text) or "[LIMITS]" in str(text) else [path, *words]:
        assert word in error
    assert not {SECRET, SECRET.upper()} & set(re.split(r"[\s,;'\"]", error))


def test_a_missing_configuration_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no configuration file none.cfg" in error_of(capsys, "--config", "none.cfg")
    assert str(tmp_path) in error_of(capsys, "--config", str(tmp_path))  # a folder


def test_the_secret_is_in_no_error(write: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    keys = f"[AWS]\nAWS_ACCESS_KEY_ID = AKIA\nAWS_SECRET_ACCESS_KEY = {SECRET}\nAWS_SESSION_TOKEN = {SECRET}\n"
    for text, _ in WRONG.values():
        if isinstance(text, str) and "AWS" not in text:
            assert SECRET not in error_of(capsys, "--config", write(keys + text))


@pytest.mark.parametrize("share", ["-1", "2", "1%", "nan", "a lot"])
def test_max_rejected_on_the_command_line(capsys: pytest.CaptureFixture[str], share: str) -> None:
    assert repr(share) in error_of(capsys, f"--max-rejected={share}")


@pytest.mark.parametrize("option", ["--input", "--output", "--config", "--report", "--max-rejected"])
def test_an_empty_value_is_not_the_default(capsys: pytest.CaptureFixture[str], option: str) -> None:
    """As "$UNSET" on a command line gives it: the job must not go on with another folder."""
    assert f"{option} is empty" in error_of(capsys, option, "")


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in", "in"),
        ("in", "in/lake"),
        ("all/in", "all"),
        ("in", "in/../in/lake/"),
        ("in", "link/lake"),  # a symlink to in
        ("link", "in"),
        ("s3a://bucket", "s3a://bucket/lake"),
        ("s3://bucket/in", "s3a://bucket/in/lake"),
        ("s3a://bucket/lake/in", "s3n://bucket/lake"),
        ("file:///in", "/in/lake"),
    ],
)
def test_input_and_output_inside_one_another(capsys: pytest.CaptureFixture[str], source: str, output: str) -> None:
    Path("in").mkdir()
    Path("link").symlink_to("in")
    assert "inside one another" in error_of(capsys, "--input", source, "--output", output)


@pytest.mark.parametrize(
    ("source", "output"), [("in", "in2"), ("s3a://bucket/in", "s3a://bucket/in-lake"), ("s3a://one/in", "s3a://two/in")]
)
def test_input_and_output_side_by_side(source: str, output: str) -> None:
    assert settings_of("--input", source, "--output", output).output.endswith(output)


# The command line


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        etl.main(["--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    _, explained = text.split("options:")
    for option in re.findall(r"\[(--\w[\w-]*)", text):
        assert re.search(rf"{option}(?: [A-Z]+)? [a-z]+ [\w']+", explained), option
    for option in ("--config", "--input", "--output", "--report", "--max-rejected", "--verbose"):
        assert option in explained
    for words in ("0 done", "1 the job failed", "2 wrong usage or configuration", "130 interrupted"):
        assert words in explained


@pytest.mark.parametrize("arguments", [["--inputs"], ["--nonsense"], ["data"], ["--report"]])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert arguments[0] in error_of(capsys, *arguments)


def test_s3_without_boto3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert etl.s3_conf(settings_of("--input", "in", "--output", "out")) == ({}, 0)
    with pytest.raises(etl.ConfigError, match=r"boto3.*pip install"):
        etl.s3_conf(settings_of("--output", "s3://bucket"))
