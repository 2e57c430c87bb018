"""The job under spark-submit, where the platform owns master, jars, committer and credentials."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import oracle
import pyspark
import pytest
import show
from conftest import ICEBERG, PLAY, ROOT, SAMPLE, write_lines, write_small
from lakes import CATALOG, some_of_sample, tables_of

SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"
SECRETS = {"AWS_SECRET_ACCESS_KEY": "%9a-secret/of+the%cfg", "AWS_SESSION_TOKEN": "%token=of the%cfg"}
ENVIRONMENT_SECRETS = {"AWS_SECRET_ACCESS_KEY": "a-secret/of+the%env", "AWS_SESSION_TOKEN": "token=of%env"}
# What Spark and spark-submit note of every application.
SPARKS_OWN = re.compile(
    r"spark\.(app\.|driver\.(host|port|extraJavaOptions)|executor\.(id|extraJavaOptions)|submit\.|rdd\.|scheduler\.mode|serializer\.objectStreamReset|hadoop\.fs\.s3a\.vectored|sql\.artifact\.isolation)"
)


CONF = "my configuration"


@dataclass
class Submitted:
    folder: Path
    given: dict[str, str]
    done: subprocess.CompletedProcess[str]
    events: str


def submit(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SUBMIT, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL, timeout=600,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable} | environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """etl.py alone in a folder, dl.cfg by --files from another one with a blank, the working folder a third; no boto3."""
    folder = tmp_path_factory.mktemp("submit")
    for name in ("code", CONF, "cwd", "events", "blocked"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "etl.py", folder / "code")
    some_of_sample(SAMPLE, folder / "in")
    aws = "".join(f"{key} = {value}\n" for key, value in {"AWS_ACCESS_KEY_ID": "AKIACONFIG", **SECRETS}.items())
    (folder / CONF / "dl.cfg").write_text(
        f"[AWS]\n{aws}[PATHS]\nINPUT_DATA = ../in\nOUTPUT_DATA = file:{folder}/lake\n[PARTITIONS]\nSONGS =\n"
    )
    (folder / "blocked" / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(dict.fromkeys(['boto3', 'botocore', 'duckdb', 'pandas', 'pyarrow', 'numpy']))\n"
    )
    given = {
        "spark.master": "local[1]",
        "spark.files": f"file://{folder}/{CONF}/dl.cfg".replace(" ", "%20"),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{folder}/events",
        "spark.eventLog.compress": "false",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "3",
    }
    options = [f"--conf={key}={given[key]}" for key in given if key not in ("spark.master", "spark.files")]
    done = submit(
        "--master", "local[1]", "--files", folder / CONF / "dl.cfg", *options, folder / "code" / "etl.py",
        cwd=folder / "cwd", PYTHONPATH=str(folder / "blocked"), AWS_ACCESS_KEY_ID="AKIAENV", **ENVIRONMENT_SECRETS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logs = [path for path in sorted((folder / "events").rglob("*")) if re.match(r"events_|local-\d+$", path.name)]
    events = "".join(path.read_text() for path in logs if path.is_file())  # a folder of files since Spark 4
    return Submitted(folder, given, done, events)


def test_it_works_with_the_dl_cfg_of_files(submitted: Submitted) -> None:
    assert tables_of(submitted.folder / "lake") == oracle.read_lake(submitted.folder / "in").tables
    assert len(list((submitted.folder / "lake" / "songs").glob("*.parquet"))) == 1  # no folders, as that dl.cfg says
    assert f"configuration: {submitted.folder}/{CONF}/dl.cfg" in submitted.done.stdout.splitlines()
    assert re.search(r"^done in \d", submitted.done.stdout, re.MULTILINE)
    assert list((submitted.folder / "cwd").iterdir()) == []


def test_it_sets_no_master_jars_committer_or_credentials_and_changes_nothing(submitted: Submitted) -> None:
    starts = (
        event
        for event in map(json.loads, submitted.events.splitlines())
        if event["Event"] == "SparkListenerEnvironmentUpdate"
    )
    properties = next(starts)["Spark Properties"]
    assert {key: value for key, value in properties.items() if not SPARKS_OWN.match(key)} == submitted.given


def test_secrets_are_not_in_the_event_log_or_the_output(submitted: Submitted) -> None:
    assert "SparkListenerApplicationEnd" in submitted.events
    for secret in (*SECRETS.values(), *ENVIRONMENT_SECRETS.values()):
        assert json.dumps(secret)[1:-1] not in submitted.events
        assert secret not in submitted.done.stdout + submitted.done.stderr


def test_the_queries_find_its_lake_as_it_does(submitted: Submitted, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("--files", submitted.folder / CONF / "dl.cfg", ROOT / "queries" / "show.py", "--engine", "spark")
    blocked = str(submitted.folder / "blocked")
    done = submit(*MASTER, *command, "at_a_glance", cwd=submitted.folder / "cwd", PYTHONPATH=blocked)
    assert show.main(["--lake", str(submitted.folder / "lake"), "at_a_glance"]) == 0
    assert done.stdout == capsys.readouterr().out, done.stderr


MASTER = ("--master", "local[1]", "--conf", "spark.ui.enabled=false", "--conf", "spark.sql.shuffle.partitions=2")


def failed(*arguments: object, cwd: Path, **environment: str) -> tuple[int, str]:
    """The exit code of a run that fails, and its one line; the log above it is the platform's."""
    done = submit(*MASTER, *arguments, cwd=cwd, **environment)
    [error] = re.findall("^etl.py: error: .*", done.stdout + done.stderr, re.MULTILINE)
    return done.returncode, error


def test_exit_codes_and_what_is_wrong(submitted: Submitted, tmp_path: Path) -> None:
    etl, lake = submitted.folder / "code" / "etl.py", tmp_path / "lake"
    code, error = failed(etl, "--input", "none", "--output", lake, cwd=tmp_path)
    assert (code, error.endswith("; the lake is unchanged"), f"file:{tmp_path}/none" in error) == (1, True, True)
    code, error = failed(
        "--conf", "spark.yarn.dist.files=file:/gone/dl.cfg", etl, "--output", lake, cwd=submitted.folder
    )
    assert (code, error) == (2, "etl.py: error: no configuration file /gone/dl.cfg")
    assert not lake.exists()


def test_file_names_that_java_cannot_spell_are_no_silent_loss(submitted: Submitted, tmp_path: Path) -> None:
    write_small(tmp_path / "in")
    write_lines(tmp_path / "in" / "log_data" / "Ä" / "雨.json", PLAY | {"itemInSession": 1})
    arguments = (submitted.folder / "code" / "etl.py", "--input", tmp_path / "in", "--output", tmp_path / "lake")
    code, error = failed(*arguments, cwd=tmp_path, LC_ALL="POSIX")
    assert code == 1 and f"{tmp_path}/in/log_data" in error and "LC_ALL" in error


def test_as_shipped_it_needs_its_own_folder_only_and_a_catalog_is_one_of_sparks_settings(tmp_path: Path) -> None:
    """etl.py, dl.cfg and data/, with dl.cfg's relative paths; and an absolute path and a blank in the report's name.

    The settings are those that the docs name for Glue, here of a catalog of files.
    """
    for name in ("etl.py", "dl.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    some_of_sample(SAMPLE, tmp_path / "data")
    text = (ROOT / "docs" / "iceberg.md").read_text("utf-8")
    [command] = re.findall(r"```bash\nspark-submit (.*?)etl.py (.*?)```", text.replace("\\\n", ""), re.S)
    conf, options = (words.replace("glue", "lake").split() for words in command)
    conf[conf.index("spark.sql.catalog.lake.type=lake")] = "spark.sql.catalog.lake.type=hadoop"
    conf[-1] = f"spark.sql.catalog.lake.warehouse=file:{tmp_path}/lake"  # where Glue has its io-impl
    assert conf[0::2] == ["--conf"] * 3 and options == ["--catalog", CATALOG]
    report = tmp_path / "the report.json"
    done = submit(*MASTER, "--packages", ICEBERG, *conf, "etl.py", *options, "--report", report, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tables_of(tmp_path / "lake") == oracle.read_lake(tmp_path / "data").tables
    assert json.loads(report.read_text())["output"] == f"file://{tmp_path}/lake"
    code, error = failed("etl.py", *options, cwd=tmp_path)
    assert (code, error) == (2, "etl.py: error: Spark knows no catalog lake: spark.sql.catalog.lake is not set")
