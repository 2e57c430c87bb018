from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from yarn_cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """YARN and S3, with the jars kept in pytest's cache from one session to the next."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a time limit leaves no servers
    with running_cluster(tmp_path_factory.mktemp("yarn"), pytestconfig.cache.mkdir("yarn-jars")) as running:
        yield running
    signal.signal(signal.SIGTERM, before)
