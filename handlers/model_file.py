"""Python code that comes with a model: a model file, as TorchServe's eager mode has it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from handlers.detectors.registry import DetectorError


def load_model_file(name: str, source: bytes) -> ModuleType:
    """The module of a model file, run once in a process, whoever asks for the same bytes again.

    What it registers (architectures, adapters, methods, targets) is there afterwards. Raises
    DetectorError for a file that cannot be run.
    """
    digest = hashlib.sha256(source).hexdigest()
    module_name = f"whybox_model_file_{digest[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    module = ModuleType(module_name)
    module.__file__ = name
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        exec(compile(source, name, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # any code, so any error
        del sys.modules[module_name]
        raise DetectorError(
            f"the model file {name} cannot be run: {type(error).__name__}: {error}"
        ) from error
    return module


def network_of(module: ModuleType, class_name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network that a model file defines, in eval mode.

    class_name: "" where the file defines one nn.Module alone, TorchServe's convention. Raises
    DetectorError if there is no such class, or it does not take the arguments.
    """
    kinds = {
        name: kind
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, nn.Module)
        if kind.__module__ == module.__name__
    }
    names = ", ".join(sorted(kinds)) or "none"
    if not class_name and len(kinds) != 1:
        raise DetectorError(
            f"network: the model file {module.__file__} defines {len(kinds)} modules ({names});"
            " say which with `network: {class: NAME}`"
        )
    kind = kinds.get(class_name) if class_name else next(iter(kinds.values()))
    if kind is None:
        raise DetectorError(
            f"network: the model file {module.__file__} defines no module {class_name}; it defines"
            f" {names}"
        )
    try:
        network: nn.Module = kind(**arguments)
    except Exception as error:  # any code, so any error
        raise DetectorError(
            f"network: {kind.__name__} cannot be built: {type(error).__name__}: {error}"
        ) from error
    return network.eval()
