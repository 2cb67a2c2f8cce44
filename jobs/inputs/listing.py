"""The input: its pictures in a fixed order, kept on disk, and its fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from archives.errors import MissingObjectError, UsageError, shortened
from archives.stores.opening import open_root, split_uri
from archives.stores.store import S3_SCHEME, Entry, Store
from jobs.inputs.sorted_on_disk import SortedOnDisk, Spool
from jobs.names import CONTACT_SHEET, RECORD, REPORT, SANITY_SHEET, SHORTCUTS

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
# Where a job keeps its listing below its output: jobs/inputs/plan.py.
PLAN = "listing/"
# What a job and the audits of it write below its output, beside run.json: no job's input, where one
# lies in the other.
OUTPUTS = ("shards/", REPORT, SHORTCUTS, PLAN, CONTACT_SHEET, SANITY_SHEET)


@dataclass(frozen=True)
class Listing(AbstractContextManager["Listing"]):
    """The pictures of one job, in a temporary file that is gone when the listing is closed.

    store: the root of their keys: the input folder; with several inputs, the deepest they share.
    local: whether they are files of this machine.
    count: pictures.
    bytes: the sum of their sizes, as far as they are known.
    fingerprint: sha256 (hex) over keys, sizes and tags in order: changes when any picture does.
    """

    store: Store
    local: bool
    count: int
    bytes: int
    fingerprint: str
    spool: Spool = field(repr=False)

    @classmethod
    def of(cls, store: Store, local: bool, entries: Iterable[Entry]) -> Listing:
        """The listing of entries that come in the order of their keys, each key once."""
        spool = Spool()
        digest = hashlib.sha256()
        count = size_sum = 0

        def noted() -> Iterator[Entry]:
            nonlocal count, size_sum
            for entry in entries:
                key, size, tag = entry
                digest.update(f"{key}\0{size}\0{tag}\n".encode(errors="surrogateescape"))
                count += 1
                size_sum += max(size, 0)
                yield entry

        try:
            spool.extend(noted())
        except BaseException:
            spool.close()
            raise
        return cls(store, local, count, size_sum, digest.hexdigest(), spool)

    def entries(self) -> Iterator[Entry]:
        """In the order of their keys, each key once, from disk; as often as wanted, also from
        several threads, until the listing is closed."""
        return self.spool.read()

    def close(self) -> None:
        """Removes the temporary file; may be called twice."""
        self.spool.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def list_input(inputs: Sequence[str], output: str, manifest: str | None = None) -> Listing:
    """The pictures in folders, below s3:// prefixes, and in single files, all in one place.

    Of folders and prefixes those with a picture's suffix are taken, however deep; left out are
    hidden ones and what jobs wrote, this one to `output` or others beside a run.json. A file that
    is named itself is taken, unless this job writes it. So is what a manifest names below the one
    input (jobs.inputs.manifest); an S3 Inventory is taken as a listing of its bucket, of which the
    input is a part (jobs.inputs.inventory), and the whole without one.
    Raises UsageError if an input is not there, holds no pictures, or if the inputs are partly
    files and partly objects, or in several buckets; if the manifest cannot be used.
    """
    with SortedOnDisk() as found:
        source = _from_manifest(manifest, inputs, found) if manifest else _search(inputs, found)
        own = _output_below(source.root, output)
        outputs = own | source.outputs
        below = len(source.folder)
        kept = (
            Entry(key[below:], size, tag)
            for key, size, tag in found.read()
            if not _is_output(key, own if key in source.named else outputs)
        )
        root = open_root(source.root).below(source.folder)
        listing = Listing.of(root, not source.root.startswith(S3_SCHEME), kept)
        if not listing.count:
            listing.close()
            raise UsageError(_nothing(shortened(" ".join(inputs) or source.root), found.count > 0))
        return listing


@dataclass
class _Source:
    """Where pictures were found; their keys and all here are below `root`.

    folder: the deepest that they all lie in, "" or with its final slash.
    outputs: other jobs' outputs that were met on the way.
    named: what was named itself, and not only its folder.
    """

    root: str
    folder: str
    outputs: set[str] = field(default_factory=set)
    named: Collection[str] = ()


def _search(inputs: Sequence[str], found: SortedOnDisk) -> _Source:
    places = [split_uri(uri) for uri in inputs]
    roots = sorted({root for root, _ in places})
    if len(roots) != 1:
        raise UsageError(
            f"the inputs lie in {', '.join(roots)}; a job reads from one bucket or from folders:"
            " run one job for each"
            if roots
            else "no input; give a folder or an s3:// prefix with --input"
        )
    root = open_root(roots[0])
    named: set[str] = set()
    folders = []
    source = _Source(roots[0], "", named=named)
    for uri, (_, path) in zip(inputs, places, strict=True):
        single = root.find(path)
        if single:
            folders.append(path.rpartition("/")[0])
            found.add(single)
            named.add(single.key)
        else:
            folder = _as_prefix(path)
            folders.append(folder.rstrip("/"))
            _take_pictures(_walk(root, folder, uri), folder, source, found)
    source.folder = _common(folders)
    return source


def _from_manifest(manifest: str, inputs: Sequence[str], found: SortedOnDisk) -> _Source:
    # They need pyarrow, which takes a while to import.
    from jobs.inputs.inventory import is_inventory, read_inventory
    from jobs.inputs.manifest import read_manifest

    if len(inputs) > 1:
        raise UsageError(
            f"{len(inputs)} inputs with a manifest; give one --input, the folder or prefix that its"
            " keys lie below"
        )
    if is_inventory(manifest):
        inventory = read_inventory(manifest)
        bucket = S3_SCHEME + inventory.bucket
        root, path = split_uri(inputs[0]) if inputs else (bucket, "")
        if root != bucket:
            raise UsageError(
                f"the inventory {shortened(manifest)} is of {bucket}, where the input"
                f" {shortened(inputs[0])} does not lie; give an --input in it, or none"
            )
        source = _Source(root, _as_prefix(path))
        _take_pictures(inventory.entries(source.folder), source.folder, source, found)
        return source
    if not inputs:
        raise UsageError("a manifest needs --input, the folder or prefix that its keys lie below")
    root, path = split_uri(inputs[0])
    source = _Source(root, _as_prefix(path))
    if root == "/" and not os.path.isdir(root + path):
        raise UsageError(
            f"the input {shortened(inputs[0])} is no folder; with a manifest, give the folder or"
            " prefix that its keys lie below"
        )
    place = f"{root.rstrip('/')}/{source.folder}"
    for entry in read_manifest(manifest, place):
        found.add(entry._replace(key=source.folder + entry.key))
    return source


def _take_pictures(
    entries: Iterable[Entry], folder: str, source: _Source, found: SortedOnDisk
) -> None:
    """Takes those with a picture's suffix that are not hidden below `folder`, and notes where
    other jobs' outputs are, whose pictures may have gone by before."""
    for entry in entries:
        if _hidden(entry.key[len(folder) :]):
            continue
        parent, _, name = entry.key.rpartition("/")
        if name == RECORD:
            source.outputs.add(parent and parent + "/")
        elif name.lower().endswith(SUFFIXES):
            found.add(entry)


def _nothing(places: str, found_outputs: bool) -> str:
    if found_outputs:
        return (
            f"all pictures in {places} are a job's own output ({', '.join(OUTPUTS)} beside its"
            f" {RECORD}); give the pictures that are to be explained"
        )
    return f"no pictures in {places}; looked for names ending in {', '.join(SUFFIXES)}"


def _walk(root: Store, folder: str, uri: str) -> Iterator[Entry]:
    try:
        yield from root.entries(folder)
    except MissingObjectError as error:
        raise UsageError(f"the input {shortened(uri)} is not there") from error


def _as_prefix(path: str) -> str:
    """The path of a folder as a prefix of keys: "" or with its final slash."""
    path = path.rstrip("/")
    return path + "/" if path else ""


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
    return {_as_prefix(path)} if output_root == root else set()


def _is_output(key: str, outputs: set[str]) -> bool:
    """Whether a job whose output is one of the prefixes `outputs` wrote this key."""
    if not outputs or not any(map(key.__contains__, OUTPUTS)):  # nearly all keys: be quick
        return False
    start = 0
    while True:
        if key.startswith(OUTPUTS, start) and key[:start] in outputs:
            return True
        start = key.find("/", start) + 1
        if not start:
            return False
