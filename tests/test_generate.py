"""bench/generate.py: the committed sample is its output, and every trap that it promises is in there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT
from conftest import SAMPLE as DATA
from lakes import contents_of
from oracle import Row, grouped, lines_of

GENERATE = ROOT / "bench" / "generate.py"
SAMPLE = "--songs 80 --events 8000 --seed 2"  # what docs/development.md says that data/ was made with
LOGS = DATA / "log_data" / "2018" / "11"
SMALL = "--songs 3 --events 300 --seed 1 --months 3"


def generate(out: Path, arguments: str) -> Path:
    subprocess.run([sys.executable, str(GENERATE), *arguments.split(), "--out", str(out)], check=True, timeout=120)
    return out


def rows_of(folder: Path, pattern: str) -> list[Row]:
    files = [path for path in sorted(folder.rglob(pattern)) if "__MACOSX" not in path.parts]
    return [json.loads(line) for path in files for line in lines_of(path)]


SONGS, EVENTS = rows_of(DATA / "song_data", "TR*"), rows_of(DATA / "log_data", "2018-*")
PLAYS = [event for event in EVENTS if event["page"] == "NextSong"]
VISITORS = [event for event in EVENTS if event["auth"] == "Logged Out"]
TITLES = {(song["title"], song["artist_name"]) for song in SONGS}
KNOWN = {(song["title"], song["artist_name"], song["duration"]) for song in SONGS}
MATCHED = [play for play in PLAYS if (play["song"], play["artist"], play["length"]) in KNOWN]
COPIES = [rows for rows in grouped(PLAYS, "ts", "userId", "sessionId", "itemInSession") if len(rows) > 1]
SONG_COPIES = [rows for rows in grouped(SONGS, "song_id") if len(rows) > 1]
ARTISTS = [{row["artist_name"] for row in rows} for rows in grouped(SONGS, "artist_id")]
LETTERS = set("".join(song["title"] + song["artist_name"] for song in SONGS))
DAYS_LATE = {
    int(path.name[8:10]) - 1 - (json.loads(line)["ts"] - 1_541_030_400_000) // 86_400_000
    for path in LOGS.glob("2018-*.json")
    for line in path.read_bytes().splitlines()
}
TRAPS = {
    "copies of a song differ": SONG_COPIES and all(row != rows[0] for rows in SONG_COPIES for row in rows[1:]),
    "a copy of a song knows its year": any({0} < {row["year"] for row in rows} for rows in SONG_COPIES),
    "two songs share title, artist and duration": len(KNOWN) < len({row["song_id"] for row in SONGS}),
    "an artist has several names": any(f"{name} feat. " in other for names in ARTISTS for name in names for other in names),
    "years and places are often unknown": 0.3 < sum(song["year"] == 0 for song in SONGS) / len(SONGS) < 0.6
    and sum(song["artist_latitude"] is None for song in SONGS) > len(SONGS) / 2
    and {"", None} < {song["artist_location"] for song in SONGS},
    "text is in several scripts": {"é", "Т", "ί", "雨", "𝄞", '"', "\\"} <= LETTERS,
    "as many events as asked, by 96 users": (len(EVENTS), len({event["userId"] for event in EVENTS} - {""})) == (8000, 96),
    "most pages are plays": 0.75 < len(PLAYS) / len(EVENTS) < 0.9,
    "visitors have no name": VISITORS and {(row["userId"], row["firstName"], row["location"]) for row in VISITORS} == {("", None, None)},
    "levels change": sum(len({row["level"] for row in rows}) > 1 for rows in grouped(EVENTS, "userId")) >= 8,
    "in both directions": {"Submit Upgrade", "Submit Downgrade"} <= {event["page"] for event in EVENTS},
    "a user never plays": {event["userId"] for event in EVENTS} > {event["userId"] for event in PLAYS} | {""},
    "a third of the plays find their song": 0.3 < len(MATCHED) / len(PLAYS) < 0.4,
    "some find another length": sum((play["song"], play["artist"]) in TITLES for play in PLAYS) > len(MATCHED),
    "a song is found by an artist's other name": any(" feat. " in play["artist"] for play in MATCHED),
    "plays come twice": any(rows[0] == rows[1] for rows in COPIES),
    "and not always alike": any(rows[0] != rows[1] for rows in COPIES),
    "a session has two plays in a millisecond": any(len({row["itemInSession"] for row in rows}) > 1 for rows in grouped(PLAYS, "ts", "sessionId")),
    "and so have two users": any(len({row["userId"] for row in rows}) > 1 for rows in grouped(PLAYS, "ts")),
    "some events come a day or two late": {0, 1} <= DAYS_LATE <= {0, 1, 2},
    "a file has Windows' line ends": b"\r\n" in (LOGS / "2018-11-05-events.json").read_bytes(),
    "a file lacks its last one": not (LOGS / "2018-11-06-events.json").read_bytes().endswith(b"\n"),
    "a separator that is no line end": any("\u2028" in path.read_text(encoding="utf-8") for path in LOGS.glob("2018-*.json")),
    "a zipped file of each input": sorted(path.relative_to(DATA).parts[0] for path in DATA.rglob("*.gz")) == ["log_data", "song_data"],
    "a song file of two lines": Counter(len(lines_of(path)) for path in DATA.rglob("TR*")) == {1: 79, 2: 1},
    "files that are no input": len([name for name in contents_of(DATA) if re.search(r"(^|/)(\.|__)", name)]) == 5,
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_the_sample_has(trap: str) -> None:
    assert TRAPS[trap]


def test_the_sample_is_the_output_of_the_command_in_the_readme(tmp_path: Path) -> None:
    files = contents_of(DATA)
    assert contents_of(generate(tmp_path, SAMPLE)) == files and sum(map(len, files.values())) < 5_000_000
    for text in (GENERATE, ROOT / "docs" / "development.md"):
        assert re.search(rf"bench/generate\.py {SAMPLE} --out data\b", text.read_text(encoding="utf-8"))


def test_another_seed_gives_other_data_and_months_spread_the_events(tmp_path: Path) -> None:
    one, two = generate(tmp_path / "one", SMALL), generate(tmp_path / "two", f"{SMALL} --seed 2")
    assert contents_of(one) != contents_of(two)
    assert len(rows_of(one / "log_data", "20*-events.json")) == 300
    assert {path.parent.name for path in one.rglob("20*-events.json")} == {"11", "12", "01", "__MACOSX"}


def test_songs_fill_as_many_folders_as_in_the_public_data(tmp_path: Path) -> None:
    files = list((generate(tmp_path, "--songs 1490 --events 0 --seed 1") / "song_data").rglob("TR*"))  # a tenth of it
    assert (len(files), len({path.parent for path in files})) == (1490, 141)
    assert all([*path.parts[-4:-1]] == list(path.name[2:5]) for path in files)


@pytest.mark.parametrize("arguments", ["--songs 0 --events 1", "--songs 1 --events -1", "--songs 4 --events 10"])
def test_numbers_that_make_no_sense_and_older_data_are_refused(tmp_path: Path, arguments: str) -> None:
    before = contents_of(generate(tmp_path, SMALL))
    with pytest.raises(subprocess.CalledProcessError):
        generate(tmp_path if "10" in arguments else tmp_path / "new", f"{arguments} --seed 1")
    assert contents_of(tmp_path) == before
