"""Where and with what the figures were made."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    *("torch", "torchvision", "numpy", "grad-cam", "torchcam", "captum", "xaitk-saliency"),
    "whybox",
)
# Of a processor, those that matter here.
FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "sve", "bf16"),
)


def machine(device: str) -> dict[str, Any]:
    """Processor, cores, threads, GPU, versions, commit; what cannot be told is left out."""
    found: dict[str, Any] = {
        "processor": _processor_line("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in processor_flags()],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_at_start": round(os.getloadavg()[0], 2),
        # Without the name of a kernel's build, which says nothing of its speed.
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "device": device,
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        found["cuda"] = torch.version.cuda
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    )
    if commit.returncode == 0:
        found["commit"] = commit.stdout.strip()
    return found


def processor_flags() -> list[str]:
    """What the processor can do, in the kernel's words; empty where it does not say."""
    return (_processor_line("flags") or _processor_line("Features")).split()


def _processor_line(name: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(values, "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
