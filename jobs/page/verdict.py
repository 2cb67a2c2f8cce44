"""Whether a run looks right, in a sentence, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from jobs.audit.findings import Part
from jobs.page.audits import Flags, Limits
from jobs.page.text import counted, visible

GOOD, LOOK, BAD, UNKNOWN = "good", "look", "bad", "unknown"
WORDS = {
    GOOD: "Looks right",
    LOOK: "Look closer",
    BAD: "Not good enough",
    UNKNOWN: "Not audited yet",
}
MOST_FLAGS = 4  # that are named as the next step


@dataclass(frozen=True)
class Step:
    """What to do next. link: where in the page; "" for nowhere."""

    text: str
    link: str = ""


@dataclass(frozen=True)
class Verdict:
    """level: GOOD, LOOK, BAD or UNKNOWN. word: the level in words. sentence: how things are.
    steps: what to do next, the most urgent first."""

    level: str
    word: str
    sentence: str
    steps: tuple[Step, ...]


def verdict(
    counts: Mapping[str, Any], parts: Sequence[Part], flags: Flags, limits: Limits | None
) -> Verdict:
    """Of a run's counts, as run.json has them, and its audit."""
    failures, missed = counts["failures"], limits.missed if limits else ()
    problem = limits.problem if limits else ""
    flagged = bool(flags.by_box or flags.by_picture)
    if missed or problem:
        level = BAD
    elif flagged or failures or not counts["detections"]:
        level = LOOK
    else:
        level = GOOD if parts or limits else UNKNOWN
    sentence = "; ".join(
        each
        for each in (_boxes(counts, parts, flags), _failed(counts), _thresholds(limits))
        if each
    )
    steps = _steps(counts, parts, flags, limits)
    return Verdict(level, WORDS[level], f"{sentence[0].upper()}{sentence[1:]}.", steps)


def _boxes(counts: Mapping[str, Any], parts: Sequence[Part], flags: Flags) -> str:
    total, pictures = counts["detections"], counts["pictures"]
    unseen = "" if parts else ", and no audit has looked at them"
    if not total and not flags.by_picture:
        return f"no box was found in {counted(pictures, 'picture')}{unseen}"
    if not parts:
        found = f"{counted(total, 'box', 'boxes')} in {counted(pictures, 'picture')}"
        return f"{found} {'is' if total == 1 else 'are'} explained{unseen}"
    boxes, whole = len(flags.by_box), len(flags.by_picture)
    if not boxes and not whole:
        return f"none of {counted(total, 'box', 'boxes')} looks wrong"
    found = f"{boxes:,} of {counted(total, 'box', 'boxes')} look{'s' * (boxes == 1)} wrong"
    if whole:
        found += f", and {counted(whole, 'picture')} as a whole" if boxes else ""
    if boxes:
        return found
    return f"{counted(whole, 'picture')} of {pictures:,} look{'s' * (whole == 1)} wrong as a whole"


def _failed(counts: Mapping[str, Any]) -> str:
    failures = counts["failures"]
    if not failures:
        return "no picture failed"
    return f"{failures:,} of {counted(counts['pictures'], 'picture')} failed"


def _thresholds(limits: Limits | None) -> str:
    if limits is None:
        return "no thresholds were set"
    if limits.problem:
        return "its thresholds do not count"
    missed, number = len(limits.missed), len(limits.limits)
    if not missed:
        return "nothing missed its threshold"
    figures = counted(number, "figure")
    return f"{missed} of {figures} missed {'its' if missed == 1 else 'their'} threshold"


def _steps(
    counts: Mapping[str, Any], parts: Sequence[Part], flags: Flags, limits: Limits | None
) -> tuple[Step, ...]:
    steps = []
    if limits and (limits.missed or limits.problem):
        names = ", ".join(visible(each.figure) for each in limits.missed[:MOST_FLAGS])
        text = f"See by how much it missed: {names}" if names else "See why thresholds do not count"
        steps.append(Step(text, "#thresholds"))
    if counts["failures"]:
        pictures = counted(counts["failures"], "picture")
        steps.append(Step(f"Read why {pictures} failed", "#failures"))
    steps += [_step(name, number) for name, number in worst_flags(flags)[:MOST_FLAGS]]
    if not counts["detections"]:
        text = "Look at the pictures: is there nothing to find, or is the least score too high?"
        steps.append(Step(text, "#gallery"))
    elif not steps or not parts:
        why = "the order is by score and by how little of the heatmap lies in the box"
        if parts:
            why = "nothing was flagged; " + why
        steps.append(Step(f"Look at some boxes: {why}", "#gallery"))
    return tuple(steps)


def _step(flag: str, number: int) -> Step:
    link = "#" + urlencode({"flag": visible(flag)})
    return Step(f"Look at {counted(number, 'finding')}: {visible(flag)}", link)


def worst_flags(flags: Flags) -> list[tuple[str, int]]:
    """How many findings each flag has, those with the worst finding first."""
    numbers: Counter[str] = Counter()
    worst: dict[str, float] = {}
    for several in (*flags.by_box.values(), *flags.by_picture.values()):
        for _, each in several:
            numbers[each.flag] += 1
            worst[each.flag] = max(worst.get(each.flag, 0.0), each.severity)
    names = sorted(numbers, key=lambda name: (-worst[name], -numbers[name], name))
    return [(name, numbers[name]) for name in names]
