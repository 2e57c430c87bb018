"""The pictures of the notebook and the README, each drawn from the answer to one of the team's questions.

    python docs/pictures.py --lake lake

writes plays_by_weekday_and_hour.png, the README's. Each title and sentence is worked out from the answer, so that it
holds for any lake.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FOLDER = Path(__file__).resolve().parent
DARK = "#08306b"
STYLE = {"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}


Picture = Callable[[pd.DataFrame], Figure]
PICTURES: dict[str, Picture] = {}  # by the question that each draws the answer to


def drawn(question: str) -> Callable[[Callable[[pd.DataFrame, Figure], str]], Picture]:
    """Makes the figure that a function draws on, with the sentence that it returns; or says that nothing is there."""

    def decorate(draw: Callable[[pd.DataFrame, Figure], str]) -> Picture:
        def picture(answer: pd.DataFrame) -> Figure:
            with matplotlib.rc_context(STYLE):
                figure = plt.figure(figsize=(9, 4.2), layout="constrained")
                sentence = f"{draw.__doc__} There are no plays." if answer.empty else draw(answer, figure)
                figure.supxlabel(sentence, x=0.01, ha="left", fontsize=9, color="0.3")
            return figure

        PICTURES[question] = picture
        return picture

    return decorate


def heat(axes: Axes, values: pd.DataFrame, text: str, largest: float) -> None:
    """A field for each value, the darker the nearer to the largest, with its figure; nothing where there is none."""
    axes.pcolormesh(values.to_numpy(dtype=float), cmap="Blues", vmin=0, vmax=largest, edgecolors="white", linewidth=0.5)
    for row, line in enumerate(values.to_numpy(dtype=float)):
        for column, value in enumerate(line):
            if value == value:
                color = "white" if value > 0.65 * largest else "black"
                axes.text(column + 0.5, row + 0.5, text.format(value), ha="center", va="center", size=8, color=color)
    axes.set_xticks([place + 0.5 for place in range(len(values.columns))], list(values.columns))
    axes.set_yticks([place + 0.5 for place in range(len(values))], list(values.index))
    axes.invert_yaxis()
    axes.tick_params(length=0)


def bars(axes: Axes, names: Sequence[str], values: pd.Series) -> None:
    """Horizontal bars, the first on top, each with its value."""
    shown = axes.barh(range(len(names)), values.astype(float), color=DARK)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.bar_label(shown, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.margins(x=0.14)
    axes.tick_params(axis="y", labelsize=8)


@drawn("plays_by_weekday_and_hour")
def weekday_and_hour(answer: pd.DataFrame, figure: Figure) -> str:
    """Plays by weekday and hour."""
    heard = answer.set_index("hour").astype(float).dropna(axis="columns", how="all")  # not the weekdays without a day
    hours = heard.reindex(range(24), fill_value=0)
    by_hour, days = hours.sum(axis=1), hours.sum()
    spans = [(width, first) for width in range(1, 25) for first in range(25 - width)]
    width, first = next(
        (width, first) for width, first in spans if sum(by_hour[first : first + width]) >= sum(by_hour) / 2
    )
    axes = figure.subplots()
    heat(axes, hours.T.rename(str.capitalize), "{:.0f}", hours.max().max())
    axes.add_patch(Rectangle((first, 0), width, len(days), fill=False, linewidth=2, clip_on=False))
    axes.set(
        title=f"Half of a week's plays fall between {first}:00 and {first + width}:00 UTC",
        xlabel="hour of the day, UTC",
    )
    is_weekend = days.index.isin(["saturday", "sunday"])
    weekend, other = days[is_weekend].mean(), days[~is_weekend].mean()
    what = "Mean plays in the hour of such a day. The frame holds half of them."
    if is_weekend.all() or not is_weekend.any():
        return what
    than = f"{abs(1 - weekend / other):.0%} {'fewer' if weekend < other else 'more'}"
    return f"{what} A Saturday or Sunday has {than} plays than another day."


@drawn("weekly_listeners")
def paid_share(answer: pd.DataFrame, figure: Figure) -> str:
    """The paid share of plays by week."""
    weeks, share = pd.to_datetime(answer["week"]), answer["paid_percent"].astype(float)
    axes = figure.subplots()
    axes.plot(range(len(weeks)), share, color=DARK, marker="o")
    labels = [f"from {week:%d %b}\n{days} days" for week, days in zip(weeks, answer["days"], strict=True)]
    step = -(-len(labels) // 7)  # more do not fit
    for place, value in list(enumerate(share))[::step]:
        axes.annotate(f"{value:.0f}%", (place, value), (0, 8), textcoords="offset points", ha="center")
    years = " to ".join(dict.fromkeys(f"{week:%Y}" for week in weeks.iloc[[0, -1]]))
    axes.set_xticks(range(0, len(labels), step), labels[::step])
    axes.set(
        title=f"The paid share of plays went from {share.iloc[0]:.0f}% to {share.iloc[-1]:.0f}% in {len(weeks)} weeks",
        xlabel=f"ISO week (Monday to Sunday, UTC) of {years}, and its days with plays",
        ylabel="paid plays, % of the week's",
        ylim=(0, 100),
    )
    listeners = f"{answer['paid_listeners'].iloc[-1]} of {answer['listeners'].iloc[-1]}"
    return f"In the last week {listeners} listeners played on the paid level."


@drawn("retention_by_week")
def retention(answer: pd.DataFrame, figure: Figure) -> str:
    """Who comes back in later weeks."""
    known = answer.filter(regex="^week_").astype(float)
    known.columns = range(1, 5)
    known.index = [
        f"{week:%d %b %Y} ({count:,})"
        for week, count in zip(pd.to_datetime(answer["first_week"]), answer["listeners"], strict=True)
    ]
    axes = figure.subplots()
    figure.set_size_inches(9, max(4.2, 0.25 * len(known)))
    heat(axes, known, "{:.0f}%", 100)
    listeners = answer["listeners"].where(known.iloc[:, 0].notna().to_numpy(), 0)
    mean = (known.iloc[:, 0].fillna(0).to_numpy() * listeners).sum() / max(listeners.sum(), 1)
    axes.set(
        title=f"{mean:.0f}% of new listeners come back in the week after their first",
        xlabel="weeks after the first one (Monday to Sunday, UTC)",
        ylabel="first week (new listeners)",
    )
    return "Share of a first week's listeners who play again, in %. Blank: that week is after the last one of the lake."


@drawn("plays_by_place")
def places(answer: pd.DataFrame, figure: Figure) -> str:
    """Plays and plays per listener by place."""
    names = answer["location"].fillna("unknown").tolist()
    per_listener = answer["plays"] / answer["listeners"]
    left, right = figure.subplots(1, 2, sharey=True)
    figure.set_size_inches(10, 5)
    bars(left, names, answer["plays"])
    bars(right, names, per_listener)
    left.set_xlabel("plays")
    right.set_xlabel("plays per listener")
    first, top = answer.iloc[0], per_listener.idxmax()
    title = f"{names[0]} hears most: {first['plays']:,} plays by {first['listeners']:,} listeners"
    figure.suptitle(title, x=0.01, ha="left")
    most = f"{names[top]} play most: {per_listener[top]:,.0f} plays each, a mean over {answer['listeners'][top]:,}"
    return f"The {len(names)} places with most plays. Listeners in {most}."


@drawn("top_songs")
def top_songs(answer: pd.DataFrame, figure: Figure) -> str:
    """The songs played most."""
    first = answer.head(12)
    axes = figure.subplots()
    bars(axes, (first["title"] + ", " + first["artist"]).tolist(), first["plays"])
    axes.set(title=f"{first['title'].iloc[0]} by {first['artist'].iloc[0]} is played most", xlabel="plays")
    return "Matched plays only: those that found their song in the catalogue."


def main(argv: Sequence[str] | None = None) -> int:
    sys.path.insert(0, str(FOLDER.parent / "queries"))
    import engines

    def draw(query: engines.Query, _: argparse.Namespace) -> int:
        columns, rows = query((engines.FOLDER / "plays_by_weekday_and_hour.sql").read_text(encoding="utf-8"))
        figure = weekday_and_hour(pd.DataFrame(rows, columns=list(columns)))
        figure.savefig(FOLDER / "plays_by_weekday_and_hour.png", bbox_inches="tight", metadata={"Software": None})
        return 0

    return engines.run(
        argparse.ArgumentParser(prog="pictures.py", description="Draw the README's picture."), argv, draw
    )


if __name__ == "__main__":
    sys.exit(main())
