"""The input: its pictures in a fixed order, the shards they are cut into, and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jobs.errors import MissingObjectError, UsageError
from jobs.names import CONTACT_SHEET, RECORD, shortened
from jobs.store import S3_SCHEME, Entry, Store, open_root, split_uri

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
# What a job writes below its output, beside run.json: no job's input, where one lies in the other.
OUTPUTS = ("shards/", "report/", CONTACT_SHEET)


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

    Of folders and prefixes those with a picture's suffix are taken, however deep; left out are
    hidden ones and what jobs wrote, this one to `output` or others beside a run.json. A file that
    is named itself is taken, unless this job writes it.
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
    own = _output_below(roots[0], output)
    outputs = set(own)
    named = set()
    folders = []
    for uri, (_, path) in zip(uris, places, strict=True):
        single = root.find(path)
        if single:
            folders.append(path.rpartition("/")[0])
            found[single.key] = single
            named.add(single.key)
        else:
            folders.append(path.rstrip("/"))
            for entry in _visible(root, path.rstrip("/"), uri):
                folder, _, name = entry.key.rpartition("/")
                if name == RECORD:
                    outputs.add(folder and folder + "/")
                elif name.lower().endswith(SUFFIXES):
                    found[entry.key] = entry
    common = _common(folders)
    below = len(common)
    kept = [
        entry._replace(key=entry.key[below:])
        for entry in sorted(found.values())
        if not _is_output(entry.key, own if entry.key in named else outputs)
    ]
    if not kept:
        raise UsageError(_nothing(shortened(" ".join(uris)), bool(found)))
    return Listing(root.below(common), kept, not roots[0].startswith(S3_SCHEME))


def _nothing(places: str, found_outputs: bool) -> str:
    if found_outputs:
        return (
            f"all pictures in {places} are a job's own output ({', '.join(OUTPUTS)} beside its"
            f" {RECORD}); give the pictures that are to be explained"
        )
    return f"no pictures in {places}; looked for names ending in {', '.join(SUFFIXES)}"


def _visible(root: Store, path: str, uri: str) -> Iterator[Entry]:
    prefix = path + "/" if path else ""
    try:
        for entry in root.entries(prefix):
            if not _hidden(entry.key[len(prefix) :]):
                yield entry
    except MissingObjectError as error:
        raise UsageError(f"the input {shortened(uri)} is not there") from error


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


def _output_below(root: str, output: str) -> set[str]:
    """The job's own output as a prefix of keys below `root`; none if it is elsewhere."""
    output_root, path = split_uri(output)
    if output_root != root:
        return set()
    return {path.rstrip("/") + "/" if path.strip("/") else ""}


def _is_output(key: str, outputs: set[str]) -> bool:
    """Whether a job whose output is one of the prefixes `outputs` wrote this key."""
    start = 0
    while True:
        if key.startswith(OUTPUTS, start) and key[:start] in outputs:
            return True
        start = key.find("/", start) + 1
        if not start:
            return False
