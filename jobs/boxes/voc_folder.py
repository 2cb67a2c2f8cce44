"""A folder in PASCAL VOC's layout: where its pictures lie, and its lists of them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np

from archives.errors import MissingObjectError, UsageError, shortened
from archives.stores.opening import open_store

PICTURES, LISTS = "JPEGImages/", "ImageSets/Main/"
ANNOTATIONS = "Annotations/"


def pictures_of(place: str) -> str | None:
    """Where the pictures of a VOC folder (or s3:// prefix) lie, or None: it is none.

    Its other folders hold masks, which are pictures, too.
    """
    store = open_store(place)
    try:
        for folder in (PICTURES, ANNOTATIONS):
            if next(iter(store.entries(folder)), None) is None:
                return None
    except MissingObjectError:
        return None
    return f"{place.rstrip('/')}/{PICTURES}"


def read_split(place: str, name: str) -> frozenset[str]:
    """The names, without an ending, in the list `name` of a VOC folder, such as "trainval" or
    "dog_test". Of a category's list those are left out that have none of it (-1).

    Raises UsageError where there is no such list, or it is none.
    """
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UsageError(f"a split: got {shortened(name)!r}; expected a list's name, as trainval")
    path = f"{LISTS}{name}.txt"
    store = open_store(place)
    try:
        text = store.read(path).decode()
    except MissingObjectError as error:
        raise UsageError(
            f"there is no list {path} at {shortened(place)}; name one that is there"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{shortened(place)}/{path} is no text: {error}") from error
    names = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) > 2 or words[1:] not in ([], ["1"], ["0"], ["-1"]):
            raise UsageError(
                f"{shortened(place)}/{path}, line {number}: got {shortened(line)!r}; expected a"
                " picture's name, and after it nothing, 1, 0 or -1"
            )
        if words[1:] != ["-1"]:
            names.add(words[0])
    return frozenset(names)


def stem(key: str) -> str:
    """What lists call a picture: its file's name without the ending."""
    return PurePosixPath(key).stem


def halves(number: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of so many pictures are in the first of two random halves: bool [number]; of an odd
    number the second half has one more."""
    first = np.zeros(number, dtype=np.bool_)
    first[np.random.default_rng(seed).permutation(number)[: number // 2]] = True
    return first
