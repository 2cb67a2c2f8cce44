"""The plots of a run's overview."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.page.figures import Figures, Mean
from jobs.page.history import Moment, series
from jobs.page.plots import Bar, Plot, bars, histogram, line
from jobs.page.text import NOTHING, counted, shown, visible

MOST_BARS = 10


def plots_of(figures: Figures, audited: bool) -> list[Plot]:
    """By category, the largest first: boxes, mean score, mean energy in the box, and where there
    was an audit flagged boxes; and how scores and energies are spread."""
    if not figures.categories:
        return []
    categories = sorted(figures.categories.items(), key=lambda each: (-each[1].boxes, each[0]))
    most = visible(categories[0][0])
    counts = [Bar(visible(name), own.boxes, f"{own.boxes:,}") for name, own in categories]
    found = [
        bars(
            "boxes",
            "Boxes by category",
            f"{counted(len(categories), 'category', 'categories')}; most boxes are {most}.",
            counts,
            "boxes",
            MOST_BARS,
        )
    ]
    if audited:
        flagged = sorted(categories, key=lambda each: (-each[1].flagged, each[0]))
        total = sum(own.flagged for _, own in categories)
        text = f"{counted(total, 'box', 'boxes')} with a finding, of {figures.score.number:,}."
        own_bars = [
            Bar(visible(name), own.flagged, f"{own.flagged:,} of {own.boxes:,}")
            for name, own in flagged
        ]
        found.append(
            bars("flagged", "Flagged boxes by category", text, own_bars, "flagged", MOST_BARS)
        )
    found += [
        _means("score", "Mean score by category", [(name, own.score) for name, own in categories]),
        _means(
            "energy",
            "Mean energy in the box, by category",
            [(name, own.energy) for name, own in categories],
        ),
        histogram("scores", "Scores of all boxes", _spread(figures.score), figures.scores),
        histogram(
            "energies", "Energy in the box, of all boxes", _spread(figures.energy), figures.energies
        ),
    ]
    return found


def plots_over_time(moments: Sequence[Moment]) -> list[Plot]:
    """A line for each figure that two of the runs have; they are in the order of their start."""
    ordered = sorted(moments, key=lambda each: each.started)
    labels = [f"{each.label}, {each.archive}" for each in ordered]
    return [
        line(f"time-{number}", visible(name), labels, values)
        for number, (name, values) in enumerate(series(ordered).items())
    ]


def _means(name: str, title: str, categories: Sequence[tuple[str, Mean]]) -> Plot:
    own = [Bar(visible(each), mean.value, _mean(mean)) for each, mean in categories]
    known = [mean.value for _, mean in categories if mean.value is not None]
    text = f"From {shown(min(known))} to {shown(max(known))}; 0 to 1." if known else NOTHING
    return bars(f"mean-{name}", title, text, own, "mean ± standard error", MOST_BARS, full=1)


def _mean(mean: Mean) -> str:
    if mean.value is None:
        return NOTHING
    return f"{mean.value:.2f}" + ("" if mean.error is None else f" ± {mean.error:.2f}")


def _spread(mean: Mean) -> str:
    if mean.value is None:
        return "There are no boxes."
    return f"Mean {shown(mean.value)} of {counted(mean.number, 'box', 'boxes')}."
