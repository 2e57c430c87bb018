from __future__ import annotations

from collections.abc import Iterator

import pytest
from yarn_cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """YARN and S3, with the jars kept in pytest's cache from one session to the next."""
    with running_cluster(tmp_path_factory.mktemp("yarn"), pytestconfig.cache.mkdir("yarn-jars")) as running:
        yield running
