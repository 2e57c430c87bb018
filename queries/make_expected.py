"""Answers the questions of queries/*.sql on the sample: plain Python on the raw JSON, no SQL, nothing of etl.py.

    python queries/make_expected.py

writes queries/expected/*.csv. The five tables come from tests/oracle.py; each function below has the name of a query
and restates its question, so that a wrong query shows as well as a wrong lake.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import oracle

FOLDER = Path(__file__).resolve().parent

Row = dict[str, Any]
Groups = list[tuple[Any, list[Row]]]
Answer = tuple[str, Iterable[Sequence[Any]]]


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> Groups:
    groups: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.items())


def rounded(count: int, by: int) -> Decimal:
    return (Decimal(count) / by).quantize(Decimal("0.1"), ROUND_HALF_UP)


def different(rows: Iterable[Row], column: str) -> int:
    return len({row[column] for row in rows} - {None})


def day_of(play: Row) -> date:
    start_time: datetime = play["start_time"]
    return start_time.date()


class Questions:
    """The answers: the names of the columns, and the rows."""

    def __init__(self, lake: oracle.Lake) -> None:
        self.songs = {row["song_id"]: row for row in lake.rows("songs")}
        self.artists = {row["artist_id"]: row for row in lake.rows("artists")}
        self.users = {row["user_id"]: row for row in lake.rows("users")}
        self.plays = lake.rows("songplays")
        self.known = [play for play in self.plays if play["song_id"] is not None]
        days = sorted(grouped(self.plays, day_of), key=itemgetter(0))
        self.days = [(*day.timetuple()[:3], plays) for day, plays in days]

    def top_songs(self) -> Answer:
        rows = []
        for (song_id, artist_id), plays in grouped(self.known, lambda play: (play["song_id"], play["artist_id"])):
            artist = self.artists[artist_id]["name"]
            rows.append((song_id, self.songs[song_id]["title"], artist, len(plays), different(plays, "user_id")))
        return "song_id title artist plays listeners", sorted(rows, key=lambda row: (-row[3], row[0]))[:20]

    def top_artists(self) -> Answer:
        rows = []
        for artist_id, plays in grouped(self.known, lambda play: play["artist_id"]):
            artist = self.artists[artist_id]
            counts = (len(plays), different(plays, "song_id"), different(plays, "user_id"))
            rows.append((artist_id, artist["name"], artist["location"], *counts))
        return "artist_id artist location plays songs listeners", sorted(rows, key=lambda row: (-row[3], row[0]))[:20]

    def plays_by_hour(self) -> Answer:
        hours = grouped(self.plays, lambda play: play["start_time"].hour)
        return "hour plays listeners", sorted((hour, len(plays), different(plays, "user_id")) for hour, plays in hours)

    def plays_by_weekday(self) -> Answer:
        rows = []
        for weekday, plays in grouped(self.plays, lambda play: day_of(play).isoweekday() % 7 + 1):
            days = len({day_of(play) for play in plays})
            rows.append((weekday, days, len(plays), rounded(len(plays), days)))
        return "weekday days plays plays_per_day", sorted(rows)

    def plays_by_day(self) -> Answer:
        return "year month day plays listeners sessions", [
            (*day, len(plays), different(plays, "user_id"), different(plays, "session_id")) for *day, plays in self.days
        ]

    def paid_and_free_by_day(self) -> Answer:
        rows = []
        for *day, plays in self.days:
            free, paid = ([play for play in plays if play["level"] == level] for level in ("free", "paid"))
            counts = (len(free), len(paid), different(free, "user_id"), different(paid, "user_id"))
            rows.append((*day, *counts, rounded(100 * len(paid), len(free) + len(paid))))
        return "year month day free_plays paid_plays free_listeners paid_listeners paid_percent", rows

    def level_changes_by_day(self) -> Answer:
        changes: defaultdict[date, list[str]] = defaultdict(list)
        for _, plays in grouped(self.plays, lambda play: play["user_id"]):
            plays.sort(key=lambda play: (play["start_time"], play["session_id"], play["songplay_id"]))
            for before, after in pairwise(plays):
                if before["level"] != after["level"]:
                    changes[day_of(after)].append(after["level"])
        return "year month day upgrades downgrades", [
            (*day.timetuple()[:3], levels.count("paid"), levels.count("free"))
            for day, levels in sorted(changes.items())
        ]

    def most_active_users(self) -> Answer:
        rows = []
        for user_id, plays in grouped(self.plays, lambda play: play["user_id"]):
            user, sessions = self.users[user_id], different(plays, "session_id")
            counts = (len(plays), sessions, len({day_of(play) for play in plays}), rounded(len(plays), sessions))
            rows.append((user_id, user["first_name"], user["last_name"], user["level"], *counts))
        columns = "user_id first_name last_name level plays sessions days plays_per_session"
        return columns, sorted(rows, key=lambda row: (-row[4], row[0]))[:20]

    def session_length(self) -> Answer:
        classes: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for _, plays in grouped(self.plays, lambda play: (play["user_id"], play["session_id"])):
            times = [play["start_time"] for play in plays]
            minutes = (max(times) - min(times)) // timedelta(minutes=1)
            from_minutes = max(bound for bound in (0, 10, 30, 60, 120, 240) if bound <= minutes)
            classes[from_minutes].append((minutes, len(plays)))
        return "from_minutes sessions plays longest", [
            (bound, len(sessions), sum(plays for _, plays in sessions), max(sessions)[0])
            for bound, sessions in sorted(classes.items())
        ]

    def plays_by_place(self) -> Answer:
        rows = [
            (place, len(plays), different(plays, "user_id"), sum(play["song_id"] is not None for play in plays))
            for place, plays in grouped(self.plays, lambda play: play["location"])
        ]
        rows.sort(key=lambda row: (-row[1], row[0] is None, row[0] or ""))
        return "location plays listeners plays_of_known_songs", rows[:15]

    def plays_by_gender(self) -> Answer:
        rows = []
        for kind, plays in grouped(self.plays, lambda play: (self.users[play["user_id"]]["gender"], play["level"])):
            listeners = different(plays, "user_id")
            rows.append((*kind, len(plays), listeners, rounded(len(plays), listeners)))
        rows.sort(key=lambda row: [(value is None, value or "") for value in row[:2]])
        return "gender level plays listeners plays_per_listener", rows

    def songs_by_decade(self) -> Answer:
        plays = {song_id: len(rows) for song_id, rows in grouped(self.known, lambda play: play["song_id"])}
        rows = []
        for decade, songs in grouped(self.songs.values(), lambda song: song["year"] // 10 * 10 or None):
            counts = [plays.get(song["song_id"], 0) for song in songs]
            longest = max(Decimal(repr(song["duration"])) for song in songs if song["duration"] is not None)
            seconds = longest.quantize(Decimal(1), ROUND_HALF_UP)
            rows.append((decade, len(songs), counts.count(0), sum(counts), seconds))
        rows.sort(key=lambda row: (row[0] is None, row[0]))
        return "decade songs never_played plays longest_seconds", rows

    def plays_without_song_by_day(self) -> Answer:
        rows = []
        for *day, plays in self.days:
            without = sum(play["song_id"] is None for play in plays)
            rows.append((*day, len(plays), without, rounded(100 * without, len(plays))))
        return "year month day plays without_song percent_without_song", rows

    def new_listeners_by_day(self) -> Answer:
        met: set[str] = set()
        rows = []
        for *day, plays in self.days:
            listeners = {play["user_id"] for play in plays}
            rows.append((*day, len(listeners - met), len(listeners & met)))
            met |= listeners
        return "year month day new_listeners back_again", rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make_expected.py", description="Compute the queries' expected results.")
    parser.add_argument("--data", type=Path, default=FOLDER.parent / "data", help="the input (default: data)")
    parser.add_argument("--out", type=Path, default=FOLDER / "expected", help="default: queries/expected")
    options = parser.parse_args(argv)
    questions = Questions(oracle.read_lake(options.data))
    options.out.mkdir(parents=True, exist_ok=True)
    for query in sorted(FOLDER.glob("*.sql")):
        columns, rows = getattr(questions, query.stem)()
        with (options.out / f"{query.stem}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns.split())
            writer.writerows(["NULL" if value is None else value for value in row] for row in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
