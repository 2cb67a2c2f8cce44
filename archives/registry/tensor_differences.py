"""Two safetensors files, tensor by tensor, without a framework: which were added, removed, changed.

Files are those of verified archives, whose headers `archives.verify` has checked.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

# numpy knows no bfloat16, which is the upper half of a float32.
BFLOAT16 = "BF16"
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", BFLOAT16: "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "|b1",
}  # fmt: skip
PART = 2**20  # values that are compared at once


class _Tensor(NamedTuple):
    kind: str
    shape: tuple[int, ...]
    start: int
    values: int

    def __str__(self) -> str:
        return f"{self.kind} {list(self.shape)}"


def tensor_differences(before: Path, after: Path) -> dict[str, Any]:
    """added, removed, reshaped, retyped and changed, by the tensors' names; how many are `same`.

    Of `added` and `removed` type and shape, as text; of `reshaped` both; of `retyped` both types;
    of `changed` the largest absolute difference of the values, whatever their types: None where it
    is not finite, as where one value is not a number or infinite and the other is not.
    """
    with before.open("rb") as old_file, after.open("rb") as new_file:
        old, new = _tensors(old_file), _tensors(new_file)
        both = [name for name in old if name in new]
        alike = [name for name in both if old[name].shape == new[name].shape]
        changed = {
            name: _largest_difference(old_file, old[name], new_file, new[name]) for name in alike
        }
    return {
        "added": {name: str(new[name]) for name in new if name not in old},
        "removed": {name: str(old[name]) for name in old if name not in new},
        "reshaped": {name: [str(old[name]), str(new[name])] for name in both if name not in alike},
        "retyped": {
            name: [old[name].kind, new[name].kind]
            for name in alike
            if old[name].kind != new[name].kind
        },
        "changed": {name: value for name, value in changed.items() if value != 0},
        "same": sum(
            value == 0 and old[name].kind == new[name].kind for name, value in changed.items()
        ),
    }


def _tensors(file: BinaryIO) -> dict[str, _Tensor]:
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: _Tensor(
            each["dtype"],
            tuple(each["shape"]),
            8 + length + each["data_offsets"][0],
            math.prod(each["shape"]),
        )
        for name, each in sorted(header.items())
    }


def _largest_difference(
    old_file: BinaryIO, old: _Tensor, new_file: BinaryIO, new: _Tensor
) -> float | None:
    largest = 0.0
    for start in range(0, old.values, PART):
        one, other = _part(old_file, old, start), _part(new_file, new, start)
        if old.kind == new.kind and one == other:
            continue
        first, second = _values(one, old.kind), _values(other, new.kind)
        unequal = (first != second) & ~(np.isnan(first) & np.isnan(second))
        if unequal.any():
            with np.errstate(over="ignore"):
                difference = np.abs(first[unequal] - second[unequal])
            if not np.isfinite(difference).all():
                return None
            largest = max(largest, float(difference.max()))
    return largest


def _part(file: BinaryIO, tensor: _Tensor, start: int) -> bytes:
    size = np.dtype(TYPES[tensor.kind]).itemsize
    file.seek(tensor.start + start * size)
    return file.read(min(PART, tensor.values - start) * size)


def _values(data: bytes, kind: str) -> NDArray[np.float64]:
    values = np.frombuffer(data, TYPES[kind])
    if kind == BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)
