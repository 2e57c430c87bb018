"""bench/generate.py: the committed sample is its output, and every trap that it promises is in there."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GENERATE = ROOT / "bench" / "generate.py"
DATA = ROOT / "data"
SAMPLE = "--songs 80 --events 8000 --seed 2"  # what docs/development.md says that data/ was made with

Row = dict[str, Any]


def generate(out: Path, arguments: str) -> Path:
    subprocess.run([sys.executable, str(GENERATE), *arguments.split(), "--out", str(out)], check=True, timeout=120)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def rows_of(folder: Path, pattern: str) -> list[Row]:
    files = [path for path in sorted(folder.rglob(pattern)) if path.is_file() and "__MACOSX" not in path.parts]
    return [json.loads(line) for path in files for line in re.split("\r?\n", text_of(path)) if line]


@pytest.fixture(scope="module")
def songs() -> list[Row]:
    return rows_of(DATA / "song_data", "TR*")


@pytest.fixture(scope="module")
def events() -> list[Row]:
    return rows_of(DATA / "log_data", "2018-*")


@pytest.fixture(scope="module")
def plays(events: list[Row]) -> list[Row]:
    return [event for event in events if event["page"] == "NextSong"]


class TestSample:
    def test_is_the_output_of_the_generator(self, tmp_path: Path) -> None:
        assert contents(generate(tmp_path, SAMPLE)) == contents(DATA)

    def test_the_generators_help_and_the_readme_give_its_command(self) -> None:
        command = re.compile(rf"bench/generate\.py {SAMPLE} --out data\b")
        assert command.search(GENERATE.read_text(encoding="utf-8"))
        assert command.search((ROOT / "docs" / "development.md").read_text(encoding="utf-8"))

    def test_has_the_layout_of_the_public_data_and_is_small(self) -> None:
        files = contents(DATA)
        song_files = [name for name in files if re.fullmatch(r"song_data/([A-Z]/){3}TR[A-Z0-9]{16}\.json(\.gz)?", name)]
        log_files = [name for name in files if re.fullmatch(r"log_data/2018/11/2018-11-\d\d-events\.json(\.gz)?", name)]
        assert (len(song_files), len(log_files)) == (80, 30)
        assert all(name.split("/")[1:4] == list(name.split("/")[4][2:5]) for name in song_files)
        assert sum(map(len, files.values())) < 5_000_000

    def test_has_one_zipped_file_of_each_input_and_one_song_file_of_two_lines(self) -> None:
        zipped = [path.relative_to(DATA).parts[0] for path in DATA.rglob("*.gz")]
        assert sorted(zipped) == ["log_data", "song_data"]
        lines = Counter(len(text_of(path).splitlines()) for path in (DATA / "song_data").rglob("TR*"))
        assert lines == {1: 79, 2: 1}

    def test_has_files_that_are_no_input(self) -> None:
        strays = {name for name in contents(DATA) if re.search(r"(^|/)(\.|__)", name)}
        assert strays == {
            "log_data/2018/11/.DS_Store",
            "log_data/2018/11/._2018-11-02-events.json",
            "log_data/__MACOSX/._2018-11-03-events.json",
            "log_data/__MACOSX/2018-11-02-events.json",
            "song_data/.DS_Store",
        }

    def test_has_other_line_ends_and_a_separator_that_is_none(self) -> None:
        logs = DATA / "log_data" / "2018" / "11"
        assert b"\r\n" in (logs / "2018-11-05-events.json").read_bytes()
        assert not (logs / "2018-11-06-events.json").read_bytes().endswith(b"\n")
        assert any("\u2028" in path.read_text(encoding="utf-8") for path in logs.glob("2018-*.json"))


class TestSongs:
    def test_copies_of_a_song_differ(self, songs: list[Row]) -> None:
        copies = defaultdict(list)
        for song in songs:
            copies[song["song_id"]].append(song)
        repeated = [rows for rows in copies.values() if len(rows) > 1]
        assert repeated
        assert all(row != rows[0] for rows in repeated for row in rows[1:])
        assert any(0 in years and max(years) > 0 for years in ([row["year"] for row in rows] for rows in repeated))

    def test_two_songs_share_title_artist_and_duration(self, songs: list[Row]) -> None:
        ids = defaultdict(set)
        for song in songs:
            ids[song["title"], song["artist_name"], song["duration"]].add(song["song_id"])
        assert max(map(len, ids.values())) > 1

    def test_an_artist_has_several_names_and_rows_of_which_some_know_more(self, songs: list[Row]) -> None:
        names, places = defaultdict(set), defaultdict(set)
        for song in songs:
            names[song["artist_id"]].add(song["artist_name"])
            places[song["artist_id"]].add(song["artist_location"] or None)
        assert any(f"{name} feat. " in alias for aliases in names.values() for name in aliases for alias in aliases)
        assert any(len(known) > 1 for known in places.values())

    def test_years_and_places_are_often_unknown(self, songs: list[Row]) -> None:
        assert 0.3 < sum(song["year"] == 0 for song in songs) / len(songs) < 0.6
        assert sum(song["artist_latitude"] is None for song in songs) > len(songs) / 2
        assert {"", None} < {song["artist_location"] for song in songs}

    def test_text_is_in_several_scripts(self, songs: list[Row]) -> None:
        letters = set("".join(song["title"] + song["artist_name"] for song in songs))
        assert {"é", "Т", "ί", "雨", "𝄞", '"', "\\"} <= letters


class TestEvents:
    def test_are_as_many_as_asked_by_96_users_on_many_pages(self, events: list[Row]) -> None:
        assert len(events) == 8000
        assert len({event["userId"] for event in events} - {""}) == 96
        pages = Counter(event["page"] for event in events)
        assert pages.most_common(2)[0][0] == "NextSong"
        assert 0.75 < pages["NextSong"] / len(events) < 0.9
        assert {
            *("Home", "Login", "Logout", "Settings", "Save Settings", "Help", "About", "Error"),
            *("Upgrade", "Submit Upgrade", "Downgrade", "Submit Downgrade"),
        } < set(pages)

    def test_of_visitors_name_nobody(self, events: list[Row]) -> None:
        visitors = [event for event in events if event["auth"] == "Logged Out"]
        assert visitors
        for event in visitors:
            assert event["userId"] == ""
            assert {event[name] for name in ("firstName", "lastName", "gender", "registration", "location")} == {None}
        assert not any(event["userId"] == "" for event in events if event["auth"] == "Logged In")

    def test_change_levels_in_both_directions(self, events: list[Row]) -> None:
        levels = defaultdict(set)
        for event in events:
            levels[event["userId"]].add(event["level"])
        assert sum(len(both) > 1 for user, both in levels.items() if user) >= 8
        assert {"Submit Upgrade", "Submit Downgrade"} <= {event["page"] for event in events}

    def test_have_a_user_who_never_plays(self, events: list[Row], plays: list[Row]) -> None:
        assert {event["userId"] for event in events} - {event["userId"] for event in plays} - {""}

    def test_find_about_a_third_of_the_songs(self, songs: list[Row], plays: list[Row]) -> None:
        known = {(song["title"], song["artist_name"], song["duration"]) for song in songs}
        titles = {known_song[:2] for known_song in known}
        matched = [play for play in plays if (play["song"], play["artist"], play["length"]) in known]
        assert 0.3 < len(matched) / len(plays) < 0.4
        other_lengths = sum((play["song"], play["artist"]) in titles for play in plays) - len(matched)
        assert other_lengths > 0
        assert any(" feat. " in play["artist"] for play in matched)

    def test_come_twice_now_and_then_and_not_always_alike(self, plays: list[Row]) -> None:
        copies = defaultdict(list)
        for play in plays:
            copies[play["ts"], play["userId"], play["sessionId"], play["itemInSession"]].append(play)
        repeated = [rows for rows in copies.values() if len(rows) > 1]
        assert any(rows[0] == rows[1] for rows in repeated)
        assert any(rows[0] != rows[1] for rows in repeated)

    def test_share_milliseconds_within_a_session_and_between_users(self, plays: list[Row]) -> None:
        items, users = defaultdict(set), defaultdict(set)
        for play in plays:
            items[play["ts"], play["sessionId"]].add(play["itemInSession"])
            users[play["ts"]].add(play["userId"])
        assert max(map(len, items.values())) > 1
        assert max(map(len, users.values())) > 1

    def test_some_come_a_day_or_two_late(self) -> None:
        late = []
        for path in (DATA / "log_data" / "2018" / "11").glob("2018-*.json"):
            day = int(path.name[8:10])
            stamps = [json.loads(line)["ts"] for line in path.read_bytes().splitlines()]
            late += [day - 1 - (ts - 1_541_030_400_000) // 86_400_000 for ts in stamps]
        assert {0, 1} <= set(late) <= {0, 1, 2}


class TestGenerator:
    def test_another_seed_gives_other_data(self, tmp_path: Path) -> None:
        one = generate(tmp_path / "one", "--songs 30 --events 200 --seed 3")
        two = generate(tmp_path / "two", "--songs 30 --events 200 --seed 4")
        assert contents(one) != contents(two)

    def test_months_spread_the_same_number_of_events(self, tmp_path: Path) -> None:
        out = generate(tmp_path, "--songs 3 --events 3000 --seed 1 --months 3")
        assert len(rows_of(out / "log_data", "20*")) == 3000
        months = {path.parent.relative_to(out).as_posix() for path in out.rglob("20*-events.json")}
        assert months == {"log_data/2018/11", "log_data/2018/12", "log_data/2019/01", "log_data/__MACOSX"}
        assert len(list((out / "log_data" / "2019" / "01").iterdir())) == 31

    def test_songs_fill_as_many_folders_as_in_the_public_data(self, tmp_path: Path) -> None:
        out = generate(tmp_path, "--songs 1490 --events 0 --seed 1")  # a tenth of it
        files = list((out / "song_data").rglob("TR*"))
        assert (len(files), len({path.parent for path in files})) == (1490, 141)

    @pytest.mark.parametrize("arguments", ["--songs 0 --events 1", "--songs 1 --events -1"])
    def test_refuses_numbers_that_make_no_sense(self, tmp_path: Path, arguments: str) -> None:
        command = [sys.executable, str(GENERATE), *arguments.split(), "--seed", "1", "--out", str(tmp_path)]
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert run.returncode == 2
        assert "need" in run.stderr

    def test_leaves_older_data_alone(self, tmp_path: Path) -> None:
        generate(tmp_path, "--songs 3 --events 10 --seed 1")
        before = contents(tmp_path)
        with pytest.raises(subprocess.CalledProcessError):
            generate(tmp_path, "--songs 4 --events 10 --seed 1")
        assert contents(tmp_path) == before
