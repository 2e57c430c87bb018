"""etl.py as it is, but for a kill -9 of all its processes at a step of a table's publication.

KILL="appended songs" python killer.py [options of etl.py]
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import etl


def die_at(step: str, table: str) -> None:
    if os.environ["KILL"] == f"{step} {table}":
        os.killpg(0, signal.SIGKILL)
        signal.pause()


class KilledLake(etl.Lake):
    """Knows of the lake's steps no more than `_append(table, ...)` and, last of all, `_delete(table, files)`."""

    def _append(self, name: str, *how: Any, **more: Any) -> Any:
        die_at("appending", name)
        appended = super()._append(name, *how, **more)
        die_at("appended", name)
        return appended

    def _delete(self, table: str, files: Any) -> None:
        files = list(files)
        die_at("verified", table)
        super()._delete(table, files[: len(files) // 2])
        die_at("half deleted", table)
        super()._delete(table, files[len(files) // 2 :])


etl.Lake = KilledLake  # type: ignore[misc]
sys.exit(etl.main())
