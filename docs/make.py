"""Makes tables.md and schema.svg of this folder from etl.py's schemas and the meanings below.

python docs/make.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import etl

FOLDER = Path(__file__).resolve().parent
SONG, LOG, START = "song_data", "log_data", "songplays.start_time"

# For each table what a row is; for each column its unit, its meaning, and the fields of the input that it comes from.
MEANINGS: dict[str, tuple[str, dict[str, tuple[str, str, str]]]] = {
    "songplays": (
        "One row per play: an event with the page NextSong. An event that was delivered twice counts once. Most "
        "plays of the sample have no song in the catalogue: join songs and artists with a left join.",
        {
            "songplay_id": (
                "",
                "128 bits in hex, the same in every run",
                f"{LOG}: ts, sessionId, itemInSession, userId",
            ),
            "start_time": ("UTC, ms", "when the play began", f"{LOG}: ts"),
            "user_id": ("", "who listened", f"{LOG}: userId"),
            "level": ("free, paid", "the level **at this play**: an upgrade shows at the next play", f"{LOG}: level"),
            "song_id": (
                "",
                "the song with the same title, artist name and duration; null where the catalogue has none",
                f"{SONG}: song_id, by title, artist_name, duration",
            ),
            "artist_id": ("", "the artist of that song; null where song_id is null", f"{SONG}: artist_id"),
            "session_id": ("", "the session; sessions are told apart by user_id and session_id", f"{LOG}: sessionId"),
            "location": ("", "where the listener was; may be null", f"{LOG}: location"),
            "user_agent": ("", "the listener's browser and device; may be null", f"{LOG}: userAgent"),
            "year": ("", "the year of start_time; a folder", f"{LOG}: ts"),
            "month": ("1 to 12", "the month of start_time; a folder", f"{LOG}: ts"),
        },
    ),
    "users": (
        "One row per logged-in user of the log, on any page, with the values of the latest event.",
        {
            "user_id": ("", "who", f"{LOG}: userId"),
            "first_name": ("", "first name; may be null", f"{LOG}: firstName"),
            "last_name": ("", "last name; may be null", f"{LOG}: lastName"),
            "gender": ("F, M", "as in the log; may be null", f"{LOG}: gender"),
            "level": ("free, paid", "the **latest** level; songplays.level is the one at a play", f"{LOG}: level"),
        },
    ),
    "songs": (
        "One row per song of the catalogue. Of copies that differ: a known year, then the alphabetically first title, "
        "the lowest artist_id, the shortest duration.",
        {
            "song_id": ("", "which song", f"{SONG}: song_id"),
            "title": ("", "its title; may be null", f"{SONG}: title"),
            "artist_id": ("", "its artist", f"{SONG}: artist_id"),
            "year": ("", "when it came out; 0 where unknown; a folder", f"{SONG}: year"),
            "duration": ("seconds", "how long it is; may be null", f"{SONG}: duration"),
        },
    ),
    "artists": (
        "One row per artist of the catalogue: the source row that knows most (location, coordinates), then the one "
        "with the shortest name.",
        {
            "artist_id": ("", "which artist", f"{SONG}: artist_id"),
            "name": ("", "name; a song may name the artist otherwise (X feat. Y)", f"{SONG}: artist_name"),
            "location": ("", "where the artist is from; null where unknown", f"{SONG}: artist_location"),
            "latitude": ("degrees", "north is positive; often null", f"{SONG}: artist_latitude"),
            "longitude": ("degrees", "east is positive; often null", f"{SONG}: artist_longitude"),
        },
    ),
    "time": (
        "One row per start_time of songplays.",
        {
            "start_time": ("UTC, ms", "the moment", START),
            "hour": ("0 to 23", "its hour", START),
            "day": ("1 to 31", "its day of the month", START),
            "week": ("1 to 53", "its week by ISO 8601, which begins on Monday", START),
            "month": ("1 to 12", "its month; a folder", START),
            "year": ("", "its year; a folder", START),
            "weekday": ("1 to 7", "its day of the week: 1 is Sunday, 7 is Saturday", START),
        },
    ),
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
    for table, (grain, meanings) in MEANINGS.items():
        parts.append(f"## {table}\n\n{grain}\n\n| column | type | unit | meaning | from |\n|---|---|---|---|---|")
        for field in etl.TABLES[table]:
            unit, meaning, source = meanings[field.name]
            other = references(table).get(field.name)
            role = "key: " if field.name == etl.KEYS[table] else f"to [{other}](#{other}): " if other else ""
            parts.append(f"| {field.name} | {field.dataType.simpleString()} | {unit} | {role}{meaning} | {source} |")
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
