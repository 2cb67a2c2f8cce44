"""How much memory is free, what a picture takes of it, and batches that fit."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of the free memory tensors may take this share: what operators need while they work is not seen
# (of Faster R-CNN and RetinaNet on a CPU as much again), and others want memory, too.
USABLE = 0.4
# Bytes for each pixel of the network input: several times what any detector here was seen to take.
GENEROUS = 4000
MIB = 2**20
# Pixels that a processor is fastest with at a time: more leave its caches. A picture of 1,066 x 800
# took a ResNet-50's detector 3.0 s by itself and 3.8 s as one of four (2 cores of an AMD EPYC); at
# 320 pixels small networks take a sixth less time for each of four.
CACHED_PIXELS = 2**20


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that can still be had on a device; None where that cannot be told.

    On the CPU the least of what the machine has available and what each control group of this
    process (version 1 or 2) leaves, where cached files count as free; on CUDA what the driver has
    free and what PyTorch keeps at hand. root: where /proc and /sys are.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + int(kept)
    if device.type != "cpu":
        return None
    known = [*_available(root / "proc/meminfo"), *_left_by_control_groups(root)]
    return max(0, min(known)) if known else None


def _available(meminfo: Path) -> Iterator[int]:
    for line in _lines(meminfo):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024


def _left_by_control_groups(root: Path) -> Iterator[int]:
    """A process sees its group's path from the root of the tree or, in a container, only the tree
    from its group on; so all groups that are found along the path count."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tree, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            tree = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = tree / path.lstrip("/")
        while group == tree or tree in group.parents:
            yield from _left(group, *names)
            group = group.parent


def _left(group: Path, limit: str, usage: str, cached: str) -> Iterator[int]:
    most, used = _lines(group / limit), _lines(group / usage)
    if not (most and used and most[0].isdigit()):  # "max" is no limit
        return
    statistics = dict(line.split() for line in _lines(group / "memory.stat"))
    yield int(most[0]) - int(used[0]) + int(statistics.get(cached, 0))


def _lines(path: Path) -> list[str]:
    """None where the system has no such file, or shows it to nobody."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def fitting(device: torch.device, asked: int, each: int, least: int = 1) -> tuple[int, str]:
    """How many of `asked` things of `each` bytes fit the free memory together, but `least` in any
    case; and what there is, for a warning, if these are fewer."""
    free = free_bytes(device) if asked > least else None
    most = asked if free is None else max(least, int(free * USABLE) // each)
    if free is None or most >= asked:
        return asked, ""
    return most, (
        f"one takes about {round(each / MIB, 1):g} MiB and {free / MIB:.0f} MiB are free, of which"
        f" {USABLE:.0%} are used"
    )


def measured(run: Callable[[], Result]) -> tuple[Result, int]:
    """What `run` gives, and the most bytes that all tensors it made took at any time. What an
    operator needs for itself while it works is not seen."""
    with _Alive() as alive:
        result = run()
    return result, alive.most


class _Alive(TorchDispatchMode):
    """Counts the bytes of tensors while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {id(each) for each in _storages((args, kwargs or {}))}
        made = function(*args, **(kwargs or {}))
        for storage in _storages(made):
            if id(storage) not in given and id(storage) not in self.known:
                self._count(storage)
        return made

    def _count(self, storage: Any) -> None:
        place, size = id(storage), storage.nbytes()

        def gone(_: Any) -> None:
            del self.known[place]
            self.now -= size

        self.known[place] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def _storages(values: Any) -> list[Any]:
    return [each.untyped_storage() for each in tree_leaves(values) if isinstance(each, Tensor)]


@dataclass
class Footprint:
    """What a picture takes while a detector runs: that of the first which was measured.

    taken: bytes, 0 as long as nothing is known. pixels: of that picture's network input.
    told: there was a warning already; one is enough.
    """

    taken: int = 0
    pixels: int = 1
    told: bool = False

    def of(self, pixels: int) -> int:
        """Bytes for a network input of so many pixels: more for a larger one in proportion, no
        less for a smaller one."""
        return int(self.taken * max(1.0, pixels / self.pixels))


def worthwhile(device: torch.device, most: int, pixels: int) -> int:
    """How many network inputs of so many pixels to run at a time where nobody says, 1 ... most."""
    return most if device.type != "cpu" else max(1, min(most, CACHED_PIXELS // pixels))


@dataclass
class Batches:
    """Runs something on items in batches that fit memory.

    device: where. asked: items to a batch, if they fit; less once memory ran out. footprint: what
    an item takes; filled in by the first one, which then runs alone. name: what was asked, in
    warnings; None where nobody asked for just this number and there is nothing to be told.
    """

    device: torch.device
    asked: int
    footprint: Footprint = field(default_factory=Footprint)
    name: str | None = "batch_size"

    def run(
        self,
        function: Callable[[Any], Sequence[Result]],
        items: Sequence[Item] | Tensor,
        pixels: int,
    ) -> Iterator[Result]:
        """What `function` gives for the items, a result for each. items: anything with a length
        that can be sliced. pixels: of the network input of each.

        Warns where the batch does not fit the free memory and is made smaller; after running out
        of it tries again with half the batch. Raises what came if one item alone does not fit.
        """
        place, size = 0, self.asked
        while place < len(items):
            size = self._fitting(size, pixels)
            number = min(size, len(items) - place)
            if number > 1 and not self.footprint.taken and not self._ample(size, pixels):
                number = 1
                results = self._measured(function, items[place : place + 1], pixels)
            else:
                found = self._tried(function, items[place : place + number])
                if found is None:
                    size = self.asked = number // 2
                    continue
                results = found
            place += number
            yield from results
            results, found = (), None  # or they would live while the next batch runs

    def next(self, pixels: int) -> int:
        """How many items it is worth to have ready for `run`: no more than it takes at a time, and
        two where it has yet to find out what one takes."""
        if self.footprint.taken or self._ample(self.asked, pixels):
            return self._fitting(self.asked, pixels)
        return min(self.asked, 2)

    def _ample(self, number: int, pixels: int) -> bool:
        """So many fit whatever the detector: there is no need to find out what one takes."""
        free = free_bytes(self.device)
        return free is None or number * pixels * GENEROUS <= free * USABLE

    def _measured(
        self, function: Callable[[Any], Sequence[Result]], items: Any, pixels: int
    ) -> Sequence[Result]:
        results, taken = measured(lambda: function(items))
        self.footprint.taken, self.footprint.pixels = max(1, taken), pixels
        return results

    def _tried(
        self, function: Callable[[Any], Sequence[Result]], items: Any
    ) -> Sequence[Result] | None:
        """None if memory ran out."""
        try:
            return function(items)
        except RuntimeError as error:
            if len(items) == 1 or not out_of_memory(error):
                raise
        # Out of the handler, which held on to the tensors that are in the way.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"out of memory with {len(items)} pictures at a time; trying {len(items) // 2}",
            stacklevel=2,
        )
        return None

    def _fitting(self, size: int, pixels: int) -> int:
        """At most `size` items, as far as is known."""
        each = self.footprint.of(pixels)
        if not each or size == 1:
            return size
        most, why = fitting(self.device, size, each)
        if most < size and self.name is not None and not self.footprint.told:
            self.footprint.told = True
            warnings.warn(
                f"{self.name}: {size} pictures at a time do not fit memory: {why}; taking {most}",
                stacklevel=2,
            )
        return most


def out_of_memory(error: BaseException) -> bool:
    """The error says that memory ran out, on a GPU or (by its text) on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
