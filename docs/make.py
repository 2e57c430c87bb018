"""Makes tables.md and schema.svg of this folder from etl.py's schemas.

python docs/make.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etl

FOLDER = Path(__file__).resolve().parent
SONG, LOG, START = "song_data", "log_data", "songplays.start_time"

# The fields of the input that each column comes from; what it means is said in etl.py.
SOURCES = {
    "songplays": {
        "songplay_id": f"{LOG}: ts, sessionId, itemInSession, userId",
        "start_time": f"{LOG}: ts",
        "user_id": f"{LOG}: userId",
        "level": f"{LOG}: level",
        "song_id": f"{SONG}: song_id, by title, artist_name, duration",
        "artist_id": f"{SONG}: artist_id",
        "session_id": f"{LOG}: sessionId",
        "location": f"{LOG}: location",
        "user_agent": f"{LOG}: userAgent",
        "year": f"{LOG}: ts",
        "month": f"{LOG}: ts",
    },
    "users": {
        "user_id": f"{LOG}: userId",
        "first_name": f"{LOG}: firstName",
        "last_name": f"{LOG}: lastName",
        "gender": f"{LOG}: gender",
        "level": f"{LOG}: level",
    },
    "songs": {name: f"{SONG}: {name}" for name in etl.TABLES["songs"].names},
    "artists": {
        "artist_id": f"{SONG}: artist_id",
        "name": f"{SONG}: artist_name",
        "location": f"{SONG}: artist_location",
        "latitude": f"{SONG}: artist_latitude",
        "longitude": f"{SONG}: artist_longitude",
    },
    "time": dict.fromkeys(etl.TABLES["time"].names, START),
}
INTRO = """\
# The tables

Made by `python docs/make.py` from the schemas in `etl.py`; a test keeps it fresh. The star as a picture: ![songplays in
the middle, users, time, songs and artists around it](schema.svg)

- Times are UTC. Parquet holds them as microseconds (INT64).
- A column that is a folder is not inside the files. `dl.cfg` may choose other folders.
- Lines of the input that fit no table are in `_rejected` (JSON: input, source_file, reason, line).
"""


def references(table: str) -> dict[str, str]:
    """The dimension that each column of a table refers to: the one whose key it is."""
    keys = {etl.KEYS[name]: name for name in etl.DIMENSIONS if name != table}
    return {column: keys[column] for column in etl.TABLES[table].names if column in keys}


def folders(table: str) -> list[str]:
    return etl.DEFAULTS["PARTITIONS"].get(table.upper(), "").split(", ")


def dictionary() -> str:
    parts = [INTRO]
    for table, sources in SOURCES.items():
        parts.append(f"## {table}\n\n{etl.GRAINS[table]}\n\n| column | type | meaning | from |\n|---|---|---|---|")
        for field in etl.TABLES[table]:
            other = references(table).get(field.name)
            role = "key: " if field.name == etl.KEYS[table] else f"to [{other}](#{other}): " if other else ""
            folder = "; a folder" if field.name in folders(table) else ""
            meaning = field.metadata["comment"]
            parts.append(
                f"| {field.name} | {field.dataType.simpleString()} | {role}{meaning}{folder} | {sources[field.name]} |"
            )
        parts.append("")
    return "\n".join(parts)


# The picture: a box for each table, a line from each column that refers to a dimension.

WIDTH, HEAD, ROW, BOX = 960, 30, 21, 260
LEFT, MIDDLE, RIGHT = 20, 350, 680
PLACES = {
    "time": (LEFT, 40),
    "users": (LEFT, 245),
    "songplays": (MIDDLE, 80),
    "songs": (RIGHT, 40),
    "artists": (RIGHT, 230),
}
HEIGHT = 405


def row_middle(table: str, column: str) -> float:
    return PLACES[table][1] + HEAD + (etl.TABLES[table].names.index(column) + 0.5) * ROW


def line(table: str, column: str, other: str) -> str:
    """From the column to the key of the other table; between two tables of one side it goes around them."""
    x, other_x = PLACES[table][0], PLACES[other][0]
    start, end = row_middle(table, column), row_middle(other, etl.KEYS[other])
    if x == other_x:
        path = f"M{x + BOX},{start} h10 V{end} h-10"
    else:
        start_x, end_x = (x, other_x + BOX) if x > other_x else (x + BOX, other_x)
        path = f"M{start_x},{start} H{(start_x + end_x) / 2} V{end} H{end_x}"
    return f'<path d="{path}" fill="none" stroke="#555" stroke-width="1.5"/>'


def box(table: str) -> str:
    x, y = PLACES[table]
    fields = etl.TABLES[table].fields
    height = HEAD + len(fields) * ROW + 6
    fill = "#08306b" if table == "songplays" else "#4a6a8a"
    parts = [
        f'<rect x="{x}" y="{y}" width="{BOX}" height="{height}" rx="5" fill="white" stroke="{fill}"/>',
        f'<path d="M{x},{y + HEAD} v{5 - HEAD} q0,-5 5,-5 h{BOX - 10} q5,0 5,5 v{HEAD - 5} z" fill="{fill}"/>',
        f'<text x="{x + 10}" y="{y + 20}" font-weight="bold" fill="white">{table}</text>',
    ]
    for field in fields:
        middle = row_middle(table, field.name) + 5
        is_key = field.name == etl.KEYS[table]
        marks = ["key"] * is_key + ["folder"] * (field.name in folders(table))
        weight = ' font-weight="bold"' if is_key else ""
        parts += [
            f'<text x="{x + 10}" y="{middle}"{weight}>{field.name}</text>',
            f'<text x="{x + 110}" y="{middle}" fill="#555">{field.dataType.simpleString()}</text>',
            f'<text x="{x + BOX - 10}" y="{middle}" text-anchor="end" fill="#555">{" ".join(marks)}</text>',
        ]
    return "\n".join(parts)


def picture() -> str:
    lines = [line(table, column, other) for table in PLACES for column, other in references(table).items()]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="DejaVu Sans, Verdana, sans-serif" font-size="13">',
            "<title>The star schema: songplays refers to users, time, songs and artists</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{LEFT}" y="22" fill="#555">Each play says when, who, which song and which artist.</text>',
            *lines,
            *map(box, PLACES),
            "</svg>\n",
        ]
    )


def main() -> None:
    (FOLDER / "tables.md").write_text(dictionary(), encoding="utf-8")
    (FOLDER / "schema.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
