"""Which of a network's classes stand for which category of the truth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from archives.errors import MissingObjectError, UsageError, shortened
from archives.stores.opening import open_root, split_uri

# Of what is listed in a message.
MOST_SHOWN = 8


def same_names(
    classes: Sequence[str], truth: Sequence[str], wanted: Sequence[str], first_label: int = 0
) -> dict[str, tuple[int, ...]]:
    """The labels of each category of the truth whose name a class has.

    classes: the network's, by label, those before `first_label` (a background) being none. wanted:
    only these of the truth; none for all. truth: none where it has no list of its categories.
    Raises UsageError for a wanted one that is not on both
    sides, and where no name is.
    """
    labels = {
        name: tuple(each for each, own in enumerate(classes) if own == name and each >= first_label)
        for name in (wanted or truth or classes[first_label:])
    }
    found = {name: own for name, own in labels.items() if own and name in (truth or labels)}
    missing = [name for name in wanted if name not in found]
    if missing or not found:
        raise UsageError(
            f"{listed(missing or truth)}: expected categories that both the truth"
            f" ({listed(truth)}) and the network ({listed(classes[first_label:])}) have; say with"
            " --categories-map which classes stand for which category"
        )
    return found


def read_map(
    place: str, classes: Sequence[str], truth: Sequence[str], wanted: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """The labels of each category of the truth as a YAML file has them, a file's path or s3:// URI.

    It has a list for each category: of classes' names, labels, or ranges of labels, "151-268". A
    class stands for one category at most. wanted: only these of them; none for all. truth: as for
    `same_names`. Raises UsageError for what is none of this, or names what is not there.
    """
    root, path = split_uri(place)
    try:
        found = yaml.safe_load(open_root(root).read(path))
    except MissingObjectError as error:
        raise UsageError(f"there is no categories map {shortened(place)}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(
            f"{shortened(place)} is no YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(found, dict) or not found:
        raise UsageError(
            f"{shortened(place)}: expected categories of the truth, each with a list of classes, as"
            " 'dog: [Chihuahua, 152-268]'"
        )
    labels: dict[str, tuple[int, ...]] = {}
    taken: dict[int, str] = {}
    for category, entries in found.items():
        if not isinstance(category, str) or (truth and category not in truth):
            raise UsageError(
                f"{shortened(place)}: the truth has no {shortened(str(category))!r}; it has"
                f" {listed(truth)}"
            )
        several = entries if isinstance(entries, list) else [entries]
        own = dict.fromkeys(label for each in several for label in _labels(each, classes, place))
        for label in own:
            if taken.setdefault(label, category) != category:
                raise UsageError(
                    f"{shortened(place)}: {classes[label]!r} stands for {taken[label]} and for"
                    f" {category}; a class stands for one category"
                )
        labels[category] = tuple(own)
    unknown = [name for name in wanted if name not in labels]
    if unknown:
        raise UsageError(f"{shortened(place)} does not say which classes are {listed(unknown)}")
    return {name: own for name, own in labels.items() if not wanted or name in wanted}


def _labels(entry: Any, classes: Sequence[str], place: str) -> list[int]:
    match = re.fullmatch(r"(\d{1,6})-(\d{1,6})", entry) if isinstance(entry, str) else None
    if isinstance(entry, str) and entry in classes:
        return [label for label, name in enumerate(classes) if name == entry]
    if match or (isinstance(entry, int) and not isinstance(entry, bool)):
        first, last = (int(match[1]), int(match[2])) if match else (int(entry), int(entry))
        if 0 <= first <= last < len(classes):
            return list(range(first, last + 1))
    raise UsageError(
        f"{shortened(place)}: got {shortened(str(entry))!r}; expected a class's name, a label from"
        f" 0 to {len(classes) - 1}, or a range of labels such as 0-{len(classes) - 1}"
    )


def category_of(labels: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """The category that each label stands for."""
    return {label: name for name, own in labels.items() for label in own}


def listed(names: Sequence[str]) -> str:
    """Some of the names, for a message."""
    shown = ", ".join(shortened(name) for name in names[:MOST_SHOWN]) or "none"
    return shown if len(names) <= MOST_SHOWN else f"{shown}, ... ({len(names)})"
