"""The input: its pictures in a fixed order, the shards they are cut into, and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jobs.errors import MissingObjectError, UsageError
from jobs.store import S3_SCHEME, Entry, Store, open_root, split_uri

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
# What a job writes below its output: never a job's input, where one lies inside the other.
OUTPUT_FOLDERS = ("shards/", "report/")
OUTPUT_FILES = ("contact-sheet.jpg",)


@dataclass(frozen=True)
class Listing:
    """The pictures of one job.

    store: its root is the input folder; with several inputs, the deepest folder they share.
    entries: sorted by key, each key once.
    local: whether they are files of this machine.
    """

    store: Store
    entries: Sequence[Entry] = field(repr=False)
    local: bool

    def fingerprint(self) -> str:
        """sha256 (hex) over keys, sizes and tags: changes when any picture does."""
        digest = hashlib.sha256()
        for key, size, tag in self.entries:
            digest.update(f"{key}\0{size}\0{tag}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def shards(self, size: int) -> list[Sequence[Entry]]:
        """The entries in their order, `size` to a shard; the last may hold fewer."""
        return [self.entries[start : start + size] for start in range(0, len(self.entries), size)]


def list_input(uris: Sequence[str], output: str) -> Listing:
    """The pictures in folders, below s3:// prefixes, and in single files, all in one place.

    Of folders and prefixes those with a picture's suffix are taken, however deep, hidden ones and
    what a job wrote to `output` left out; a file that is named itself is always taken.
    Raises UsageError if an input is not there, holds no pictures, or if the inputs are partly
    files and partly objects, or in several buckets.
    """
    places = [split_uri(uri) for uri in uris]
    roots = sorted({root for root, _ in places})
    if len(roots) != 1:
        raise UsageError(
            f"the inputs lie in {', '.join(roots)}; a job reads from one bucket or from folders:"
            " run one job for each"
        )
    root = open_root(roots[0])
    found: dict[str, Entry] = {}
    folders = []
    for uri, (_, path) in zip(uris, places, strict=True):
        single = root.find(path)
        if single:
            folders.append(path.rpartition("/")[0])
            found[single.key] = single
        else:
            folders.append(path.rstrip("/"))
            for entry in _pictures(root, path.rstrip("/"), uri):
                found[entry.key] = entry
    common = _common(folders)
    below = len(common)
    mine = _outputs_below(roots[0], output)
    kept = [
        entry._replace(key=entry.key[below:])
        for entry in sorted(found.values())
        if not entry.key.startswith(mine)
    ]
    if not kept:
        raise UsageError(
            f"no pictures in {' '.join(uris)}; looked for names ending in {', '.join(SUFFIXES)}"
        )
    return Listing(root.below(common), kept, not roots[0].startswith(S3_SCHEME))


def _pictures(root: Store, path: str, uri: str) -> Iterator[Entry]:
    prefix = path + "/" if path else ""
    try:
        for entry in root.entries(prefix):
            below = entry.key[len(prefix) :]
            if below.lower().endswith(SUFFIXES) and not _hidden(below):
                yield entry
    except MissingObjectError as error:
        raise UsageError(f"the input {uri} is not there") from error


def _hidden(key: str) -> bool:
    return key.startswith(".") or "/." in key


def _common(folders: Sequence[str]) -> str:
    """The deepest folder that all lie in, "" or with its final slash."""
    first, *others = [folder.split("/") if folder else [] for folder in folders]
    depth = len(first)
    for other in others:
        same = 0
        while same < min(depth, len(other)) and first[same] == other[same]:
            same += 1
        depth = same
    return "".join(part + "/" for part in first[:depth])


def _outputs_below(root: str, output: str) -> tuple[str, ...]:
    """Prefixes of keys below `root` that are the job's own output; none if that is elsewhere."""
    output_root, path = split_uri(output)
    if output_root != root:
        return ()
    prefix = path.rstrip("/") + "/" if path.strip("/") else ""
    return tuple(prefix + name for name in (*OUTPUT_FOLDERS, *OUTPUT_FILES))
