"""Answers the questions of queries/*.sql on the sample: plain Python on the raw JSON, no SQL, nothing of etl.py.

    python queries/make_expected.py

writes queries/expected/*.csv, and sample.json, by which check.py knows the sample's lake. The five tables come from
tests/oracle.py; each function below has the name of a query and restates its question, so that a wrong query shows as
well as a wrong lake.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter, defaultdict
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


def week_of(play: Row) -> date:
    day = day_of(play)
    return day - timedelta(days=day.weekday())


def play_order(play: Row) -> tuple[Any, ...]:
    return play["start_time"], play["session_id"], play["songplay_id"]


def session_of(play: Row) -> tuple[str, int]:
    return play["user_id"], play["session_id"]


def paid_percent(plays: Sequence[Row]) -> Decimal:
    return rounded(100 * sum(play["level"] == "paid" for play in plays), len(plays))


class Questions:
    """The answers: the names of the columns, and the rows."""

    def __init__(self, lake: oracle.Lake) -> None:
        self.songs = {row["song_id"]: row for row in lake.rows("songs")}
        self.artists = {row["artist_id"]: row for row in lake.rows("artists")}
        self.users = {row["user_id"]: row for row in lake.rows("users")}
        self.plays = lake.rows("songplays")
        self.known = [play for play in self.plays if play["song_id"] is not None]
        self.by_user = dict(grouped(sorted(self.plays, key=play_order), itemgetter("user_id")))
        days = sorted(grouped(self.plays, day_of), key=itemgetter(0))
        self.days = [(*day.timetuple()[:3], plays) for day, plays in days]

    def top_songs(self) -> Answer:
        rows = []
        for song_id, plays in grouped(self.known, itemgetter("song_id")):
            song = self.songs[song_id]
            artist = self.artists[song["artist_id"]]["name"]
            rows.append((song_id, song["title"], artist, len(plays), different(plays, "user_id")))
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

    def plays_by_weekday_and_hour(self) -> Answer:
        days = Counter(day.isoweekday() for day in {*map(day_of, self.plays)})
        plays = Counter((play["start_time"].hour, day_of(play).isoweekday()) for play in self.plays)
        hours = sorted({hour for hour, _ in plays})
        week = range(1, 8)
        rows = [
            (hour, *(rounded(plays[hour, day], days[day]) if days[day] else None for day in week)) for hour in hours
        ]
        return "hour monday tuesday wednesday thursday friday saturday sunday", rows

    def plays_by_day(self) -> Answer:
        return "year month day plays listeners sessions", [
            (*day, len(plays), different(plays, "user_id"), len({*map(session_of, plays)})) for *day, plays in self.days
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
        for plays in self.by_user.values():
            for before, after in pairwise(play for play in plays if play["level"] in ("free", "paid")):
                if before["level"] != after["level"]:
                    changes[day_of(after)].append(after["level"])
        return "year month day upgrades downgrades", [
            (*day.timetuple()[:3], levels.count("paid"), levels.count("free"))
            for day, levels in sorted(changes.items())
        ]

    def most_active_users(self) -> Answer:
        rows = []
        for user_id, plays in self.by_user.items():
            user, sessions = self.users[user_id], different(plays, "session_id")
            counts = (len(plays), sessions, len({day_of(play) for play in plays}), rounded(len(plays), sessions))
            rows.append((user_id, user["first_name"], user["last_name"], user["level"], *counts))
        columns = "user_id first_name last_name level plays sessions days plays_per_session"
        return columns, sorted(rows, key=lambda row: (-row[4], row[0]))[:20]

    def session_length(self) -> Answer:
        bounds = {240: "240 or more", 120: "120 to 239", 60: "60 to 119", 30: "30 to 59", 10: "10 to 29", 0: "under 10"}
        classes: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for _, plays in grouped(self.plays, session_of):
            times = [play["start_time"] for play in plays]
            minutes = (max(times) - min(times)) // timedelta(minutes=1)
            length = next(name for bound, name in bounds.items() if bound <= minutes)
            classes["one play" if len(plays) == 1 else length].append((minutes, len(plays)))
        rows = []
        for length in ("one play", *reversed(bounds.values())):
            minutes, counts = zip(*classes[length], strict=True)
            rows.append((length, len(counts), sum(counts), max(minutes) if length != "one play" else None))
        return "length_in_minutes sessions plays longest_minutes", rows

    def at_a_glance(self) -> Answer:
        days = sorted(map(day_of, self.plays))
        found = rounded(100 * len(self.known), len(self.plays))
        row = (days[0], days[-1], len(days), len(self.by_user), paid_percent(self.plays), found)
        return "first_day last_day plays listeners paid_percent song_found_percent", [row]

    def weekly_listeners(self) -> Answer:
        rows = []
        for week, plays in sorted(grouped(self.plays, week_of), key=itemgetter(0)):
            paying = {play["user_id"] for play in plays if play["level"] == "paid"}
            counts = (len({*map(day_of, plays)}), different(plays, "user_id"), len(paying), len(plays))
            rows.append((week, *counts, paid_percent(plays)))
        return "week days listeners paid_listeners plays paid_percent", rows

    def retention_by_week(self) -> Answer:
        weeks = {user_id: {*map(week_of, plays)} for user_id, plays in self.by_user.items()}
        last_week = max(map(max, weeks.values()))
        rows = []
        for first_week in sorted({*map(min, weeks.values())}):
            cohort = [heard for heard in weeks.values() if min(heard) == first_week]
            later = [first_week + timedelta(weeks=number) for number in (1, 2, 3, 4)]
            shares = [rounded(100 * sum(week in heard for heard in cohort), len(cohort)) for week in later]
            known = [share if week <= last_week else None for week, share in zip(later, shares, strict=True)]
            rows.append((first_week, len(cohort), *known))
        return "first_week listeners week_1_percent week_2_percent week_3_percent week_4_percent", rows

    def plays_before_upgrade(self) -> Answer:
        bounds = {1: "1 to 9", 10: "10 to 24", 25: "25 to 49", 50: "50 to 99", 100: "100 or more"}
        classes: dict[int, list[int]] = {bound: [] for bound in bounds}
        for plays in self.by_user.values():
            levels = [play["level"] for play in plays]
            free = levels.index("free") if "free" in levels else len(levels)
            upgrades = [number for number, level in enumerate(levels) if level == "paid" and number > free]
            if upgrades:
                classes[max(bound for bound in bounds if bound <= upgrades[0])].append(upgrades[0])
        rows = [
            (bounds[bound], len(counts), rounded(sum(counts), len(counts)))
            for bound, counts in classes.items()
            if counts
        ]
        return "plays_before listeners mean_plays", rows

    def silent_listeners(self) -> Answer:
        end = max(play["start_time"] for play in self.plays)
        rows = []
        for user_id, plays in self.by_user.items():
            user, last = self.users[user_id], plays[-1]
            silent_days = (end - last["start_time"]).days
            if silent_days >= 14:
                names = (user["first_name"], user["last_name"], user["level"])
                rows.append((user_id, *names, len(plays), day_of(last), silent_days))
        columns = "user_id first_name last_name level plays last_day silent_days"
        return columns, sorted(rows, key=lambda row: (-row[4], row[0]))[:20]

    def devices(self) -> Answer:
        names = {"iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Windows": "Windows", "Macintosh": "Mac"}

        def device_of(play: Row) -> str | None:
            agent = play["user_agent"]
            words = {**names, "Linux": "Linux", "": "other"}
            return None if agent is None else next(name for word, name in words.items() if word in agent)

        rows = []
        for device, plays in grouped(self.plays, device_of):
            listeners = different(plays, "user_id")
            rows.append((device, len(plays), listeners, rounded(len(plays), listeners), paid_percent(plays)))
        rows.sort(key=lambda row: (-row[1], row[0] is None, row[0] or ""))
        return "device plays listeners plays_per_listener paid_percent", rows

    def one_month_by_level(self) -> Answer:
        month = [play for play in self.plays if (play["start_time"].year, play["start_time"].month) == (2018, 11)]
        rows = []
        for level, plays in grouped(month, itemgetter("level")):
            sessions = len({*map(session_of, plays)})
            rows.append((level, len(plays), different(plays, "user_id"), sessions, rounded(len(plays), sessions)))
        rows.sort(key=lambda row: (row[0] is None, row[0] or ""))
        return "level plays listeners sessions plays_per_session", rows

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
    parser.add_argument("--out", type=Path, default=FOLDER / "expected", help="default: queries/expected")
    options = parser.parse_args(argv)
    questions = Questions(oracle.read_lake(FOLDER.parent / "data"))
    options.out.mkdir(parents=True, exist_ok=True)
    for query in sorted(FOLDER.glob("*.sql")):
        columns, rows = getattr(questions, query.stem)()
        with (options.out / f"{query.stem}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns.split())
            writer.writerows(["NULL" if value is None else value for value in row] for row in rows)
    marks = {"song_id": min(questions.songs), "songplay_id": min(play["songplay_id"] for play in questions.plays)}
    (options.out / "sample.json").write_text(json.dumps(marks) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
