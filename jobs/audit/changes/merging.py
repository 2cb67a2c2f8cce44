"""Two runs read side by side, picture by picture, in the order of their keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from archives.errors import ConflictError, shortened
from jobs.saved_run import SavedPicture, SavedRun

NAMED = 3


@dataclass
class Noted:
    """How many pictures something is true of, and the first of their names."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        if self.count <= NAMED:
            self.first.append(shortened(name))


@dataclass
class Pictures:
    """What became of the pictures of two runs.

    compared: in both. other_content: in both under one key, and not the same picture: not compared.
    only_before, only_after: not in the other's input. failed: one run or both could not do them.
    """

    compared: int = 0
    other_content: Noted = field(default_factory=Noted)
    only_before: Noted = field(default_factory=Noted)
    only_after: Noted = field(default_factory=Noted)
    failed: Noted = field(default_factory=Noted)


def merged(
    before: SavedRun, after: SavedRun, pictures: Pictures
) -> Iterator[tuple[SavedPicture, SavedPicture]]:
    """Every picture that both runs did, and did with the same content; the others are counted in
    `pictures`. Few are held at once. Raises ConflictError for a listing that is not in order."""
    failed = {str(row["key"]) for run in (before, after) for row in run.failures()}
    first, second = _in_order(before), _in_order(after)
    one, other = next(first, None), next(second, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.key < other.key):
            assert one is not None
            _alone(one, failed, pictures.only_before, pictures.failed)
            one = next(first, None)
        elif one is None or other.key < one.key:
            _alone(other, failed, pictures.only_after, pictures.failed)
            other = next(second, None)
        else:
            if same_content(one, other):
                pictures.compared += 1
                yield one, other
            else:
                pictures.other_content.add(one.name)
            one, other = next(first, None), next(second, None)
    for name in sorted(failed):
        pictures.failed.add(name)


def same_content(one: SavedPicture, other: SavedPicture) -> bool:
    """Whether two listings may be of one picture, as far as they tell.

    Other sizes or ETags are other pictures. A file's tag is its time, which a copy changes.
    """
    if one.size != other.size and min(one.size, other.size) >= 0:
        return False
    tags = one.tag, other.tag
    times = any(not tag or tag.isdecimal() for tag in tags)
    if not times and tags[0] != tags[1]:
        return False
    sides = [{(row["width"], row["height"]) for row in each.rows} for each in (one, other)]
    return not all(sides) or sides[0] == sides[1]


def _alone(picture: SavedPicture, failed: set[str], alone: Noted, with_failures: Noted) -> None:
    if picture.name in failed:
        failed.discard(picture.name)
        with_failures.add(picture.name)
    else:
        alone.add(picture.name)


def _in_order(run: SavedRun) -> Iterator[SavedPicture]:
    last = None
    for each in run.pictures():
        if last is not None and each.key <= last:
            raise ConflictError(
                f"the listing of {shortened(run.output.uri)} is not in the order of its keys:"
                f" {shortened(each.name)} comes too late; expected what `jobs explain` wrote"
            )
        last = each.key
        yield each
