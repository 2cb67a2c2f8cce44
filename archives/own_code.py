"""Running an archive's own code, from the folder it was unpacked into, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archives import golden_process
from archives.errors import one_line
from archives.golden import Answer, answer_of
from archives.refusals import DoesNotLoadError

SECONDS = 600.0
# All that the process gets of the environment: no credentials, and nothing that changes numbers.
PASSED_ON = (
    "CUDA_VISIBLE_DEVICES", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES",
    "PATH", "PYTHONUSERBASE", "TMPDIR", "TZ", "VIRTUAL_ENV",
)  # fmt: skip
# The same arithmetic on every x86-64 processor that has AVX2. Not torch's code for older ones: with
# that torchvision resizes bytes otherwise, by up to a grey level. golden_process.py pins what can
# be pinned once torch is loaded.
PINNED = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


@dataclass(frozen=True)
class Explained:
    """request: what was asked, all fields of ExplainRequest that can be asked over HTTP.
    explanations: `box`, `label`, `category` and `score` of each. heatmaps: float32 [h, w] each."""

    request: Mapping[str, Any]
    explanations: Sequence[Mapping[str, Any]]
    heatmaps: Sequence[NDArray[np.float32]]

    @property
    def answer(self) -> Answer:
        """The same in numbers."""
        return answer_of(self.explanations, self.heatmaps)


def load(folder: Path, device: str = "cpu") -> None:
    """Has the archive in `folder` loaded. Raises DoesNotLoadError."""
    with tempfile.TemporaryDirectory(prefix="whybox-load-") as scratch:
        _run(folder, Path(scratch), device, b"", None)


def explain(
    folder: Path, picture: bytes, request: Mapping[str, Any] | None, device: str = "cpu"
) -> Explained:
    """What the archive in `folder` answers for a picture (an encoded one) and a request (fields of
    ExplainRequest; None for those of a golden sample), by pinned arithmetic. Raises
    DoesNotLoadError."""
    with tempfile.TemporaryDirectory(prefix="whybox-load-") as scratch:
        outcome = _run(folder, Path(scratch), device, picture, request)
        try:
            explanations = outcome["explanations"]
            maps = [np.load(Path(scratch, f"{i}.npy")) for i in range(len(explanations))]
            found = Explained(outcome["request"], explanations, maps)
            _ = found.answer
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DoesNotLoadError(
                f"its code gave no usable answer ({type(error).__name__}: {error})"
            ) from error
        return found


def _run(
    folder: Path, scratch: Path, device: str, picture: bytes, request: Mapping[str, Any] | None
) -> dict[str, Any]:
    if picture:
        (scratch / "picture").write_bytes(picture)
    order: dict[str, Any] = {"folder": str(folder.resolve()), "device": device}
    order |= {"request": None if request is None else dict(request)}
    order |= {"picture": str(scratch / "picture") if picture else "", "answer": str(scratch)}
    (scratch / "order.json").write_text(json.dumps(order))
    told = scratch / "told"
    try:
        with told.open("wb") as out:
            done = subprocess.run(
                [sys.executable, "-P", str(golden_process.__file__), str(scratch / "order.json")],
                cwd=scratch,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=SECONDS,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise DoesNotLoadError(f"its code did not end within {SECONDS:g} seconds") from error
    if done.returncode:
        raise DoesNotLoadError(f"its code {_ended(done.returncode)}: {_last_line(told)}")
    try:
        outcome = json.loads((scratch / "outcome.json").read_bytes())
        error_text = outcome["error"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DoesNotLoadError(f"its code told no outcome: {_last_line(told)}") from error
    if error_text is not None:
        raise DoesNotLoadError(one_line(ValueError(error_text)))
    assert isinstance(outcome, dict)
    return outcome


def environment(folder: Path) -> dict[str, str]:
    """That of a process which imports `handlers` from `folder`, and computes as all others do."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {"PYTHONPATH": str(folder.resolve()), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**passed_on, **PINNED, **own}


def _ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _last_line(told: Path) -> str:
    lines = told.read_bytes()[-4000:].decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
