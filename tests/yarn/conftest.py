from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator

import pytest
from yarn_cluster import Cluster, running_cluster

from emr.__main__ import parse
from emr.request import make_plan

PLACES = "--input s3://songs/raw --output s3://lake/sparkify --logs s3://logs/sparkify"


@pytest.fixture(scope="session")
def launched() -> dict[str, list[str]]:
    """The settings that the launcher asks Spark and YARN for on a cluster of its own."""
    request = make_plan(parse(f"run {PLACES}".split()), "x").request
    assert request is not None
    words = request["Steps"][0]["HadoopJarStep"]["Args"]
    conf = [word for before, word in itertools.pairwise(words) if before == "--conf"]
    return {"spark": conf, "yarn": [f"{k}={v}" for k, v in request["Configurations"][0]["Properties"].items()]}


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, launched: dict[str, list[str]]
) -> Iterator[Cluster]:
    """YARN and S3, with the jars kept in pytest's cache from one session to the next."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a time limit leaves no servers
    yarn_site = dict(setting.split("=") for setting in launched["yarn"])
    folder, cache = tmp_path_factory.mktemp("yarn"), pytestconfig.cache.mkdir("yarn-jars")
    with running_cluster(folder, cache, yarn_site) as running:
        yield running
    signal.signal(signal.SIGTERM, before)
