"""etl.py without its checks, all else alike: what the checks take is the difference.

    python bench/unchecked.py [the options of etl.py]

The write still has to know how many rows and folders each table has, so that is counted here, and no more.
"""

import sys
from functools import reduce
from pathlib import Path

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import etl


def count_tables(
    tables: dict[str, DataFrame], log_rows: DataFrame, partitions: dict[str, tuple[str, ...]]
) -> dict[str, int]:
    """The rows of each table, and the folders of each partitioned one; nothing is proved."""
    folders = reduce(
        DataFrame.unionAll,
        (
            table.select(F.lit(name).alias("table"), F.concat_ws("/", *partitions.get(name, ())).alias("folder"))
            for name, table in tables.items()
        ),
    )
    counts = dict.fromkeys([*etl.TABLES, "matched"], 0)
    per_folder = folders.groupBy("table", "folder").agg(F.count("*").alias("rows"))
    for row in per_folder.groupBy("table").agg(F.sum("rows").alias("rows"), F.count("*").alias("folders")).collect():
        counts |= {row["table"]: row["rows"], f"{row['table']} folders": row["folders"]}
    return counts


if __name__ == "__main__":
    etl.check_tables = count_tables
    sys.exit(etl.main())
