"""Makes song and log data with the shapes and the traps of the real thing; every name and title is invented.

    python bench/generate.py --songs 80 --events 8000 --seed 2 --out data

    DIR/song_data/A/B/C/TRABC....json             one song each (one file holds two, one is gzipped)
    DIR/log_data/2018/11/2018-11-01-events.json   a day of events each, in order of delivery (one is gzipped)

The same arguments give the same bytes on every Python: random numbers come from Random.random alone, the one method
whose sequence is promised to stay, and no function is used whose last digit depends on the platform's C library.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

FIRST_MONTH = (2018, 11)
DAY_MS = 86_400_000
SONGS_PER_FOLDER = 14_896 / 1_411  # the public data: 14,896 songs in 1,411 folders
EVENTS_PER_USER = 83  # the public data: about 8,000 events by 96 users
MAX_GAP_MS = 430_000  # longer than any song, so a bound on the time between two events of a session

CATALOGUE_SHARE = 0.36  # plays of songs that are in song_data
OTHER_VERSION_SHARE = 0.04  # of those: same title and artist, another length, so no match
REDELIVERED_SHARE = 0.004
ALIAS_SHARE = 0.12  # songs under "X feat. Y" instead of "X"

# Listening by hour of the day (UTC) and by day of the week (from Monday).
HOURS = (30, 24, 22, 20, 22, 26, 34, 40, 48, 54, 58, 62, 66, 76, 90, 104, 110, 106, 94, 80, 66, 54, 44, 36)
WEEKDAYS = (100, 110, 122, 112, 118, 64, 52)
LAUNCH_HOUR = 20  # the service opens on the evening of its first day


def words(text: str) -> list[str]:
    return text.split()


SYLLABLES = words(
    "ba bel bri cor dan del dor el fen fi gar gi hol is jo ka kel la lin lo mar mi mo na nel no or pa per qui ra "
    "ren ri ro sa sel shi so ta tel to tri u val ven vi wen wil ya zan zo ör né ñi ål šu żo ía"
)
ADJECTIVES = words(
    "Amber Borrowed Broken Careful Copper Distant Electric Faded Final Golden Half Hollow Honest Idle Late Little "
    "Lonely Lucky Neon Northern Old Open Paper Patient Quiet Restless Salt Second Silver Slow Spare Velvet"
)
NOUNS = words(
    "Avenue Balcony Bridges Calendar Carousel Coastline Compass Daylight Elevator Engines Fireflies Harbour Hours "
    "Island Kitchen Lanterns Letters Machines Maps Meridian Mirrors Orchard Photograph Pilots Radio Rain Rivers "
    "Satellite Shadows Signals Staircase Static Summer Telephone Thunder Tigers Trains Umbrella Windows Winter"
)
TITLE_FORMS = ("{a} {n}", "{n}", "The {a} {n}", "{n} and {m}", "{n} in the {m}", "My {a} {n}", "No More {n}", "{w}")
NAME_FORMS = ("{w}", "The {n}", "{w} {v}", "{a} {n}", "{w} & the {n}", "DJ {w}", "{w} {v} Trio")
# Rare titles: quotes and backslashes, other scripts, a character beyond the 16-bit plane, and a line separator that
# is no line break in JSON Lines.
ODD_TITLES = ('Señal "Nocturna"', "C:\\Temp", "Тихий берег", "Νησί", "雨の駅", "𝄢 Low 𝄞 High", "Before\u2028After")

PLACES = (  # name, latitude, longitude, listeners
    ("San Francisco-Oakland-Hayward, CA", 37.78, -122.42, 14),
    ("New York-Newark-Jersey City, NY-NJ-PA", 40.71, -74.01, 12),
    ("Chicago-Naperville-Elgin, IL-IN-WI", 41.88, -87.63, 10),
    ("Portland-South Portland, ME", 43.66, -70.26, 8),
    ("Atlanta-Sandy Springs-Roswell, GA", 33.75, -84.39, 8),
    ("Lansing-East Lansing, MI", 42.73, -84.56, 7),
    ("Tampa-St. Petersburg-Clearwater, FL", 27.95, -82.46, 6),
    ("Houston-The Woodlands-Sugar Land, TX", 29.76, -95.37, 6),
    ("Seattle-Tacoma-Bellevue, WA", 47.61, -122.33, 5),
    ("Denver-Aurora-Lakewood, CO", 39.74, -104.99, 4),
    ("Marinette, WI-MI", 45.1, -87.63, 3),
    ("Nashville-Davidson--Murfreesboro--Franklin, TN", 36.16, -86.78, 3),
    ("San Germán, PR", 18.08, -67.05, 2),
    ("Española, NM", 35.99, -106.08, 2),
    ("Eugene, OR", 44.05, -123.09, 2),
    ("Duluth, MN-WI", 46.79, -92.1, 1),
    ("Burlington-South Burlington, VT", 44.48, -73.21, 1),
    ("Cheyenne, WY", 41.14, -104.82, 1),
)
FAR_PLACES = (("Malmö, Sweden", 55.6, 13.0), ("São Paulo, Brazil", -23.55, -46.63), ("Leeds, England", 53.8, -1.55))
FIRST_NAMES = {
    "F": words("Ada Beatriz Chloë Dina Elif Freya Grace Hana Inés Jo Kaia Lucía Mira Nadia Olga Priya Rosa Tove"),
    "M": words("Adam Björn Caleb Dev Emil Felix Goran Hugo Iker José Kofi Liam Marek Noah Otto Pavel Ravi Tom"),
}
LAST_NAMES = words(
    "Adeyemi Bauer Castellanos Doyle Eriksson Fonseca Grant Holloway Ivanov Jensen Kimura Lindqvist Moreau Núñez "
    "O'Dell Petrov Quist Rivera Sørensen Tanaka Underhill Vance Whitlock Yilmaz Zamora"
)
SYSTEMS = ("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_14", "X11; Linux x86_64", "iPhone; CPU OS 12_1")
BROWSERS = ("Firefox/63.0", "AppleWebKit/605.1.15 Version/12.0 Safari/605.1.15", "AppleWebKit/537.36 Chrome/70.0.3538")

METHODS = dict.fromkeys(("NextSong", "Login", "Logout", "Save Settings", "Submit Upgrade", "Submit Downgrade"), "PUT")
STATUSES = {"Error": 404} | dict.fromkeys(METHODS, 307) | {"NextSong": 200}
VISITOR_PAGES = ("Home", "Home", "Home", "About", "Help")
# What a listener does between two songs: pages and their weights, by level.
PAGES = {
    "free": (("Home", 60), ("Upgrade", 9), ("Settings", 5), ("Help", 4), ("About", 3), ("Error", 2)),
    "paid": (("Home", 60), ("Downgrade", 5), ("Settings", 5), ("Help", 4), ("About", 3), ("Error", 2)),
}
# Where a page leads at once, and how often.
FOLLOW_UPS = {
    "Upgrade": ("Submit Upgrade", 0.35),
    "Downgrade": ("Submit Downgrade", 0.2),
    "Settings": ("Save Settings", 0.3),
}
LEVEL_AFTER = {"Submit Upgrade": "paid", "Submit Downgrade": "free"}

JUNK = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xff\xfe"


@dataclass
class Track:
    """A song as the log's JSON has it."""

    artist: str
    length: str
    song: str
    length_ms: int


@dataclass
class User:
    """A listener, and the parts of a line that stay the same in all of its events."""

    level: str
    plays: bool
    before_item: str
    before_length: str
    location: str
    registration: str
    agent: str
    user_id: str
    busy_until: int = 0


def pick(rng: random.Random, items: Sequence[T]) -> T:
    return items[int(rng.random() * len(items))]


def pick_popular(rng: random.Random, items: Sequence[T]) -> T:
    """The first items are picked most, the last ones seldom."""
    draw = rng.random()
    return items[int(draw * (0.35 + 0.65 * draw) * len(items))]


class Weighted:
    """Picks indexes by whole-number weights."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.bounds = list(accumulate(weights))

    def pick(self, rng: random.Random) -> int:
        return bisect_right(self.bounds, rng.random() * self.bounds[-1])


def make_word(rng: random.Random) -> str:
    return "".join(pick(rng, SYLLABLES) for _ in range(2 + int(rng.random() * 2))).capitalize()


def make_phrase(rng: random.Random, forms: Sequence[str]) -> str:
    return pick(rng, forms).format(
        a=pick(rng, ADJECTIVES), n=pick(rng, NOUNS), m=pick(rng, NOUNS), v=make_word(rng), w=make_word(rng)
    )


def make_id(rng: random.Random, prefix: str) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return prefix + "".join(pick(rng, letters) for _ in range(18 - len(prefix)))


def make_duration(rng: random.Random) -> float:
    return round(90 + 110 * (rng.random() + rng.random() + rng.random()), 5)


def make_artists(rng: random.Random, count: int) -> list[dict[str, Any]]:
    artists = []
    for _ in range(count):
        place = pick(rng, PLACES)[:3] if rng.random() < 0.8 else pick(rng, FAR_PLACES)
        located, mapped = rng.random() < 0.5, rng.random() < 0.35
        artists.append(
            {
                "artist_id": make_id(rng, "AR"),
                "artist_latitude": place[1] if mapped else None,
                "artist_longitude": place[2] if mapped else None,
                "artist_location": place[0] if located else "",
                "artist_name": make_phrase(rng, NAME_FORMS),
            }
        )
    return artists


def make_songs(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Rows of song_data, the most played first; some are copies of an earlier row that differ, some its twins."""
    artists = make_artists(rng, max(1, count * 2 // 3))
    songs: list[dict[str, Any]] = []
    for number in range(count):
        artist = pick_popular(rng, artists)
        song = {
            "num_songs": 1,
            **artist,
            "song_id": make_id(rng, "SO"),
            "title": make_phrase(rng, TITLE_FORMS),
            "duration": make_duration(rng),
            "year": 0 if rng.random() < 0.45 else 2018 - int(rng.random() * rng.random() * 58),
        }
        if rng.random() < ALIAS_SHARE:
            song["artist_name"] += f" feat. {pick(rng, artists)['artist_name']}"
        if rng.random() < 0.1:  # the same artist, less known
            song |= {"artist_latitude": None, "artist_longitude": None, "artist_location": None}
        if number % 10 == 8:
            song["title"] = ODD_TITLES[number // 10 % len(ODD_TITLES)]
        if number % 25 == 24:
            earlier = pick(rng, songs)
            changes: tuple[dict[str, Any], ...] = (
                {"title": f"{earlier['title']} (Remastered)", "year": 2009},
                {"year": 0},
                {"duration": earlier["duration"] + 1.5, "artist_name": f"{earlier['artist_name']} (live)"},
                artist,
            )
            song = earlier | changes[number // 25 % len(changes)]
        elif number % 25 == 12:  # a twin: another song_id for the same title, artist and duration
            song = songs[number // 25] | {"song_id": song["song_id"], "year": song["year"]}
        songs.append(song)
    return songs


def gzip_stored(data: bytes) -> bytes:
    """A gzip file of uncompressed blocks: what compression makes of the data depends on the zlib at hand."""
    blocks = [data[start : start + 0xFFFF] for start in range(0, len(data), 0xFFFF)] or [b""]
    body = b"".join(
        (b"\x01" if block is blocks[-1] else b"\x00")
        + len(block).to_bytes(2, "little")
        + (0xFFFF - len(block)).to_bytes(2, "little")
        + block
        for block in blocks
    )
    header = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    return header + body + zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")


def write_songs(rng: random.Random, songs: list[dict[str, Any]], root: Path) -> None:
    """One file for each song but the last, which is the second line of the first file."""
    *singles, extra = songs
    folders = min(26**3, max(1, round(len(singles) / SONGS_PER_FOLDER)))
    made: set[Path] = set()
    for number, song in enumerate(singles):
        folder_number = number * folders // len(singles)
        letters = "".join(chr(ord("A") + folder_number // 26**power % 26) for power in (2, 1, 0))
        folder = root.joinpath(*letters)
        if folder not in made:
            folder.mkdir(parents=True)
            made.add(folder)
        lines = (song, extra) if number == 0 else (song,)
        data = "\n".join(map(json.dumps, lines)).encode()
        name = make_id(rng, f"TR{letters}")
        if number == 7:
            (folder / f"{name}.json.gz").write_bytes(gzip_stored(data))
        else:
            (folder / f"{name}.json").write_bytes(data)


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def make_track(artist: str, title: str, seconds: float) -> Track:
    return Track(as_json(artist), as_json(seconds), as_json(title), int(seconds * 1000))


def make_others(rng: random.Random, count: int) -> list[Track]:
    """Songs that people play and song_data does not know, by fewer artists than songs."""
    names = [make_phrase(rng, NAME_FORMS) for _ in range(count // 3 + 1)]
    return [
        make_track(
            pick_popular(rng, names),
            ODD_TITLES[number // 50 % len(ODD_TITLES)] if number % 50 == 49 else make_phrase(rng, TITLE_FORMS),
            make_duration(rng),
        )
        for number in range(count)
    ]


def make_users(rng: random.Random, count: int, start: int) -> list[User]:
    places = Weighted([place[3] for place in PLACES])
    users = []
    for number in range(count):
        gender = "F" if rng.random() < 0.57 else "M"
        names = [as_json(name) for name in (pick(rng, FIRST_NAMES[gender]), pick(rng, LAST_NAMES))]
        registered = start - int(rng.random() * 150 * DAY_MS)
        users.append(
            User(
                level="paid" if rng.random() < 0.2 else "free",
                plays=number % 96 != 40,  # one in 96 looks around and never plays
                before_item=f'"auth":"Logged In","firstName":{names[0]},"gender":"{gender}","itemInSession":',
                before_length=f',"lastName":{names[1]},"length":',
                location=as_json(PLACES[places.pick(rng)][0]),
                registration=f"{registered}.0" if number % 8 else f"{registered / 1e12!r}E12",
                agent=as_json(f"Mozilla/5.0 ({pick(rng, SYSTEMS)}) {pick(rng, BROWSERS)}"),
                user_id=str(number + 1),
            )
        )
    return users


class Log:
    """Plays the listeners' sessions, day by day, into lines with the time of their delivery."""

    def __init__(self, rng: random.Random, catalogue: list[Track], others: list[Track], users: list[User], end: int):
        self.rng = rng
        self.catalogue = catalogue
        self.others = others
        self.users = users
        self.end = end
        self.sessions = 0
        self.hours = Weighted(HOURS)
        self.pages = {level: Weighted([weight for _, weight in pages]) for level, pages in PAGES.items()}

    def day(self, start: int, first_hour: int, lines: int) -> Iterator[tuple[int, str]]:
        """Just so many lines, by sessions that start on this day and may last into the next."""
        rng = self.rng
        starts: list[tuple[int, int]] = []
        while lines > 0:
            draw = rng.random()
            length = min(lines, 1 + int(90 * draw * draw * draw * draw))
            lines -= length
            hour = max(first_hour, self.hours.pick(rng))
            began = start + hour * 3_600_000 + int(rng.random() * 3_600_000)
            if starts and rng.random() < 0.05:  # two listeners in the same millisecond
                began = starts[-1][0]
            starts.append((min(began, self.end - length * MAX_GAP_MS), length))
        for began, length in sorted(starts):
            self.sessions += 1
            yield from self.session(self.free_user(began), began, length)

    def free_user(self, ts: int) -> User:
        number = int(self.rng.random() * len(self.users))
        if self.users[number].level == "free" and self.rng.random() < 0.5:  # those who pay come more often
            number = int(self.rng.random() * len(self.users))
        for step in range(len(self.users)):
            user = self.users[(number + step) % len(self.users)]
            if user.busy_until < ts:
                return user
        return self.users[number]

    def session(self, user: User, ts: int, length: int) -> Iterator[tuple[int, str]]:
        rng = self.rng
        item = 0
        visits = min(length - 1, 1 + int(rng.random() * 3)) if rng.random() < 0.2 else 0
        for visit in range(visits):
            yield ts, self.visitor_line(user, "Login" if visit == visits - 1 else pick(rng, VISITOR_PAGES), item, ts)
            item += 1
            ts += 2_000 + int(rng.random() * 40_000)
        left = length - visits
        page = ""
        while left > 0:
            page = self.next_page(user, page, left)
            if page == "NextSong":
                track = self.next_track()
                line = self.play_line(user, track, item, ts)
                gap = track.length_ms + int(rng.random() * 900)
                if rng.random() < 0.08:  # skipped, now and then in the same millisecond
                    gap = int(rng.random() * 30_000) if rng.random() < 0.8 else 0
            else:
                user.level = LEVEL_AFTER.get(page, user.level)
                line = self.page_line(user, page, item, ts)
                gap = int(rng.random() * 60_000) if rng.random() < 0.85 else 0
            yield ts, line
            left -= 1
            if left > 0 and rng.random() < REDELIVERED_SHARE:
                late = int(rng.random() * 1.5 * DAY_MS)
                if rng.random() < 0.25:  # the copy has lost its userAgent
                    line = line.replace(f'"userAgent":{user.agent}', '"userAgent":null')
                yield min(ts + late, self.end - 1), line
                left -= 1
            item += 1
            ts += gap
        user.busy_until = ts + 60_000

    def next_page(self, user: User, page: str, left: int) -> str:
        rng = self.rng
        follow_up, chance = FOLLOW_UPS.get(page, ("", 0.0))
        if rng.random() < chance:
            return follow_up
        if left == 1 and rng.random() < 0.3:
            return "Logout"
        if user.plays and rng.random() < 0.88:
            return "NextSong"
        return PAGES[user.level][self.pages[user.level].pick(rng)][0]

    def next_track(self) -> Track:
        rng = self.rng
        if rng.random() >= CATALOGUE_SHARE:
            return pick_popular(rng, self.others)
        track = pick_popular(rng, self.catalogue)
        if rng.random() >= OTHER_VERSION_SHARE:
            return track
        return Track(track.artist, f"{track.length_ms // 1000 + 2}.25", track.song, track.length_ms)

    def play_line(self, user: User, track: Track, item: int, ts: int) -> str:
        return (
            f'{{"artist":{track.artist},{user.before_item}{item}{user.before_length}{track.length}'
            f',"level":"{user.level}","location":{user.location},"method":"PUT","page":"NextSong"'
            f',"registration":{user.registration},"sessionId":{self.sessions},"song":{track.song},"status":200'
            f',"ts":{ts},"userAgent":{user.agent},"userId":"{user.user_id}"}}'
        )

    def page_line(self, user: User, page: str, item: int, ts: int) -> str:
        return (
            f'{{"artist":null,{user.before_item}{item}{user.before_length}null'
            f',"level":"{user.level}","location":{user.location},"method":"{METHODS.get(page, "GET")}"'
            f',"page":"{page}","registration":{user.registration},"sessionId":{self.sessions},"song":null'
            f',"status":{STATUSES.get(page, 200)},"ts":{ts},"userAgent":{user.agent},"userId":"{user.user_id}"}}'
        )

    def visitor_line(self, user: User, page: str, item: int, ts: int) -> str:
        return (
            f'{{"artist":null,"auth":"Logged Out","firstName":null,"gender":null,"itemInSession":{item}'
            f',"lastName":null,"length":null,"level":"{user.level}","location":null'
            f',"method":"{METHODS.get(page, "GET")}","page":"{page}","registration":null,"sessionId":{self.sessions}'
            f',"song":null,"status":{STATUSES.get(page, 200)},"ts":{ts},"userAgent":null,"userId":""}}'
        )


def days_of(months: int) -> list[date]:
    year, month = FIRST_MONTH
    after = year * 12 + month - 1 + months
    first, end = date(year, month, 1), date(after // 12, after % 12 + 1, 1)
    return [first + timedelta(days=number) for number in range((end - first).days)]


def write_logs(rng: random.Random, songs: list[dict[str, Any]], events: int, months: int, root: Path) -> None:
    days = days_of(months)
    start = int(datetime(*FIRST_MONTH, 1, tzinfo=timezone.utc).timestamp()) * 1000
    catalogue = [make_track(song["artist_name"], song["title"], song["duration"]) for song in songs]
    others = make_others(rng, 400 + 2 * len(songs))
    users = make_users(rng, max(96, events // EVENTS_PER_USER), start)
    log = Log(rng, catalogue, others, users, start + len(days) * DAY_MS)
    # The first day is an evening, and then listening grows a little from day to day.
    weights = [
        WEEKDAYS[day.weekday()] * (100 + number * 60 // len(days)) // (1 if number else 12)
        for number, day in enumerate(days)
    ]
    shares = [events * reached // sum(weights) for reached in accumulate(weights, initial=0)]
    deliveries: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    for number, day in enumerate(days):
        lines = shares[number + 1] - shares[number]
        for delivered, line in log.day(start + number * DAY_MS, LAUNCH_HOUR if number == 0 else 0, lines):
            deliveries[(delivered - start) // DAY_MS].append((delivered, line))
        folder = root / f"{day:%Y/%m}"
        folder.mkdir(parents=True, exist_ok=True)
        in_order = [line for _, line in sorted(deliveries.pop(number, []), key=itemgetter(0))]
        data = (("\r\n" if number == 4 else "\n").join(in_order) + ("" if number == 5 else "\n")).encode()
        if number == 0:
            (folder / f"{day}-events.json.gz").write_bytes(gzip_stored(data))
        else:
            (folder / f"{day}-events.json").write_bytes(data)


def write_strays(out: Path) -> None:
    """What a Mac and its zip leave among the files: none of it is input."""
    logs = out / "log_data" / "2018" / "11"
    leftovers = out / "log_data" / "__MACOSX"
    leftovers.mkdir()
    (out / "song_data" / ".DS_Store").write_bytes(JUNK)
    (logs / ".DS_Store").write_bytes(JUNK)
    (logs / "._2018-11-02-events.json").write_bytes(JUNK)
    (leftovers / "._2018-11-03-events.json").write_bytes(JUNK)
    shutil.copyfile(logs / "2018-11-02-events.json", leftovers / "2018-11-02-events.json")


def generate(songs: int, events: int, seed: int, out: Path, months: int = 1) -> None:
    rng = random.Random(seed)
    rows = make_songs(rng, songs + 1)
    write_songs(rng, rows, out / "song_data")
    write_logs(rng, rows, events, months, out / "log_data")
    write_strays(out)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="generate.py", description="Make song_data and log_data with the shapes and traps of the real data."
    )
    parser.add_argument("--songs", type=int, required=True, help="song files; the public data has 14896")
    parser.add_argument("--events", type=int, required=True, help="lines of log; the public data has about 8000")
    parser.add_argument("--out", type=Path, required=True, help="folder to fill, without song_data and log_data")
    parser.add_argument("--seed", type=int, required=True, help="another seed, other data")
    parser.add_argument("--months", type=int, default=1, help="months of log from November 2018 on (default: 1)")
    options = parser.parse_args(argv)
    if options.songs < 1 or options.events < 0 or options.months < 1:
        parser.error("--songs and --months need 1 or more, --events 0 or more")
    for name in ("song_data", "log_data"):
        if (options.out / name).exists():
            parser.error(f"{options.out / name} exists: remove it first")
    generate(options.songs, options.events, options.seed, options.out, options.months)
    return 0


if __name__ == "__main__":
    sys.exit(main())
