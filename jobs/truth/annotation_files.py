"""Files of annotations, one for each picture: which is whose, and the text and numbers in them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from archives.errors import MissingObjectError, UsageError, printable, shortened
from archives.stores.store import Entry, Store

LARGEST_FILE = 16 * 2**20  # bytes of one picture's annotations
LOOKED_THROUGH = 10_000  # files of a folder, for the first of a kind


@dataclass(frozen=True)
class Place:
    """A file or folder below a store's root: a bucket, or the file system.

    path: without a slash at either end; "" for the root itself.
    """

    root: Store
    path: str

    def store(self) -> Store:
        """The folder as a store."""
        return self.root.below(f"{self.path}/" if self.path else "")

    def below(self, name: str) -> Place:
        """What lies in the folder under a name."""
        return Place(self.root, f"{self.path}/{name}".lstrip("/"))

    def parent(self) -> Place | None:
        """The folder that it lies in; None for the root."""
        return Place(self.root, self.path.rpartition("/")[0]) if self.path else None


@dataclass(frozen=True)
class AnnotationFolder:
    """A folder with a file for each picture. suffix: that of the files, such as ".xml"."""

    store: Store
    suffix: str
    largest: int = LARGEST_FILE

    def read(self, key: str) -> tuple[str, bytes] | None:
        """A picture's file, its address for messages and what it holds; None if there is none.

        For the key a/b/x.jpg that is a/b/x.xml, else b/x.xml, else x.xml. Raises UsageError for one
        that is larger than any annotations are.
        """
        for name in tails(key):
            entry = self.store.find(name + self.suffix)
            if entry is None:
                continue
            address = f"{self.store.uri.rstrip('/')}/{entry.key}"
            if entry.size > self.largest:
                raise UsageError(
                    f"{shown(address)}: {entry.size:,} bytes; expected at most {self.largest:,} of"
                    " one picture's annotations"
                )
            return address, self.store.read(entry.key)
        return None

    def entries(self) -> Iterator[Entry]:
        """All its files, in the order of their keys; none where there is no such folder."""
        with suppress(MissingObjectError):
            yield from (each for each in self.store.entries() if each.key.endswith(self.suffix))


def fingerprint(entries: Iterable[Entry], categories: Iterable[str] = ()) -> str:
    """sha256 (hex) over categories, and files' keys, sizes and tags in order: changes when any
    does, as a listing's of pictures."""
    digest = hashlib.sha256()
    for name in categories:
        digest.update(f"{name}\0".encode(errors="surrogatepass"))
    for key, size, tag in entries:
        digest.update(f"{key}\0{size}\0{tag}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def first_files(
    store: Store, suffixes: tuple[str, ...], number: int, but: frozenset[str] = frozenset()
) -> list[str]:
    """The keys of the first files with one of the suffixes, at most so many; none where there is no
    such folder. but: names that are left out."""
    try:
        found = (
            entry.key
            for entry in islice(store.entries(), LOOKED_THROUGH)
            if entry.key.lower().endswith(suffixes) and entry.key.rpartition("/")[2] not in but
        )
        return list(islice(found, number))
    except MissingObjectError:
        return []


def tails(key: str) -> Iterator[str]:
    r"""A picture's key without its ending, then without its first folder, the first two, ...: a/b/x
    and b/x and x of a/b/x.jpg. Nothing of what leads upwards (..) is kept.

    A key as tables have it (\xNN for bytes that are not UTF-8) stands for the one in the store,
    too, which is tried after it.
    """
    for each in dict.fromkeys((key, as_stored(key))):
        parts = [part for part in each.split("/") if part not in ("", ".")]
        if ".." in parts:
            parts = parts[len(parts) - parts[::-1].index("..") :]
        if not parts or "\0" in each:
            continue
        name = parts[-1]
        stem = name.rpartition(".")[0] or name
        for first in range(len(parts)):
            yield "/".join((*parts[first:-1], stem))


def as_stored(key: str) -> str:
    r"""The key whose printable form this is, if \xNN in it stands for bytes."""
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), key)


def decoded(data: bytes, address: str) -> str:
    """The text of a file. Raises UsageError for what is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{shown(address)}: expected text in UTF-8; byte {error.start:,} is none"
        ) from error


def is_text(name: object) -> bool:
    """Whether it is a text that can be written: JSON's and YAML's escapes can also spell halves of
    characters (lone surrogates), which UTF-8 does not have."""
    return isinstance(name, str) and not any("\ud800" <= each <= "\udfff" for each in name)


def number(text: str, where: str) -> float:
    """A finite number. where: for the message, the file, the line, and what it is. Raises
    UsageError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: expected a number, got {shown(text)!r}")
    return value


def shown(text: str) -> str:
    """Text from a file, or a file's address, for a message."""
    return printable(shortened(text))
