from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from archives.golden import golden_files
from archives.registry.comparison import compare
from archives.registry.golden_differences import golden_differences
from archives.registry.tensor_differences import tensor_differences
from handlers.manifest import ArchiveError
from tests.archives.small_archives import write_small


def saved(path: Path, tensors: dict[str, Any]) -> Path:
    path.write_bytes(safetensors.numpy.save(tensors))
    return path


def test_tensors_one_by_one(tmp_path: Path) -> None:
    same = np.arange(6, dtype=np.float32).reshape(2, 3)
    old = {
        "same": same,
        "gone": same,
        "shape": same,
        "kind": same,
        "kind and value": same,
        "value": same,
        "whole": np.array([1, 250], np.uint8),
        "nan": np.array([np.nan, 1], np.float32),
        "new nan": np.ones(2, np.float32),
        "new inf": np.ones(2, np.float32),
        "overflow": np.array([-1.5e308]),
        "inf": np.array([np.inf, 1], np.float32),
    }
    new = {
        "same": same,
        "new": np.ones((2, 2), np.float16),
        "shape": same.T.copy(),
        "kind": same.astype(np.float16),
        "kind and value": same.astype(np.float64) + 1,
        "value": same + np.array([0, -0.5, 0.25], np.float32),
        "whole": np.array([251, 250], np.uint8),
        "nan": np.array([np.nan, 3], np.float32),
        "new nan": np.array([1, np.nan], np.float32),
        "new inf": np.array([1, np.inf], np.float32),
        "overflow": np.array([1.5e308]),
        "inf": np.array([np.inf, 3], np.float32),
    }
    assert tensor_differences(saved(tmp_path / "a", old), saved(tmp_path / "b", new)) == {
        "added": {"new": "F16 [2, 2]"},
        "removed": {"gone": "F32 [2, 3]"},
        "reshaped": {"shape": ["F32 [2, 3]", "F32 [3, 2]"]},
        "retyped": {"kind": ["F32", "F16"], "kind and value": ["F32", "F64"]},
        "changed": {
            "kind and value": 1.0,
            "value": 0.5,
            "whole": 250.0,
            "nan": 2.0,
            "new nan": None,
            "new inf": None,
            "overflow": None,
            "inf": 2.0,
        },
        "same": 1,
    }


def test_bfloat16_and_tensors_of_several_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import save

    monkeypatch.setattr("archives.registry.tensor_differences.PART", 7)
    values = torch.linspace(-2, 2, 50).bfloat16()
    for name, tensor in (("a", values), ("b", values + 3)):
        (tmp_path / name).write_bytes(save({"w": tensor, "x": values.clone()}))
    found = tensor_differences(tmp_path / "a", tmp_path / "b")
    assert found["changed"] == {"w": float((values + 3 - values).float().abs().max())}
    assert found["same"] == 1


def test_archives(tmp_path: Path) -> None:
    old = write_small(
        tmp_path / "old.mar",
        options={"min_size": 320},
        extra={"handlers/a.py": b"1", "handlers/b.py": b"1"},
        torch="2.14",
    )
    new = write_small(
        tmp_path / "new.mar",
        "1.1",
        categories=("__background__", "ring", "disc", "star"),
        config="minWorkers: 2\nwhybox: {buckets: [a]}\n",
        options={"min_size": 640},
        defaults={"method": "odam"},
        extra={"handlers/a.py": b"2", "handlers/c.py": b"1"},
        torch="2.15",
    )
    found = compare(old, new, tmp_path)
    assert found["manifest"] == {"version": ["1.0", "1.1"], "torch": ["2.14", "2.15"]}
    assert found["options"] == {"min_size": [320, 640]}
    assert found["defaults"] == {"method": [None, "odam"]}
    assert found["model_config"] == {"minWorkers": [1, 2], "whybox.buckets": [None, ["a"]]}
    assert found["categories"] == {
        "added": ["star"],
        "removed": [],
        "moved": {"disc": [1, 2], "ring": [2, 1]},
    }
    assert found["files"] == {
        "added": ["handlers/c.py"],
        "removed": ["handlers/b.py"],
        "changed": ["handlers/a.py", "model-config.yaml"],
    }
    assert (found["weights"], found["golden"]) == (None, None)


@pytest.mark.parametrize(
    "config",
    [
        "a: [", "a: " + "[" * 5000, "{a: &b [1, 2], c: [*b, *b]}", "a: &a [*a]",
        "!!python/name:os.x",
        "a: !!bool x", "a: !!timestamp x", "a: 2001-99-99", "a: .inf", "a: 0x" + "f" * 9999, "\0",
        "a: [{2001-01-01: 1}]", "a: " + "x" * 300_000,
    ],
)  # fmt: skip
def test_a_strange_model_config(config: str, tmp_path: Path) -> None:
    old, new = write_small(tmp_path / "old.mar"), write_small(tmp_path / "new.mar", config=config)
    with pytest.raises(ArchiveError, match=r"its model-config\.yaml is malformed"):
        compare(old, new, tmp_path)


def test_values_that_json_does_not_know(tmp_path: Path) -> None:
    old = write_small(tmp_path / "old.mar", config="a: 2001-01-01\n1: {2: x}")
    new = write_small(tmp_path / "new.mar", config="- a")
    found = compare(old, new, tmp_path)["model_config"]
    assert found == {"a": ["2001-01-01", None], "1.2": ["x", None]}
    assert json.dumps(found, allow_nan=False)


def write_golden(folder: Path, picture: bytes, boxes: Any, scores: Any, maps: Any) -> None:
    """An unpacked archive's golden sample; boxes: with their labels."""
    explained = [
        {"box": box, "label": label, "category": str(label), "score": score}
        for (*box, label), score in zip(boxes, scores, strict=True)
    ]
    arrays = [np.array(each, np.float32) for each in maps]
    for name, data in golden_files(picture, {"method": "odam"}, explained, arrays).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_golden_samples_side_by_side(tmp_path: Path) -> None:
    a, b = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]
    maps = [[[1, 0]], [[1, 0]], [[1]]]
    write_golden(tmp_path / "old", b"p", [[*a, 1], [*b, 2], [*a, 3]], [0.9, 0.8, 0.7], maps)
    lower = [20.0, 20.0, 40.0, 30.0]
    maps = [[[0, 1]], [[2, 0]]]
    write_golden(tmp_path / "new", b"q", [[*lower, 2], [*a, 1]], [0.6, 0.95], maps)
    names = ("", "cat", "dog")
    found = golden_differences(tmp_path / "old", tmp_path / "new", (names, names))
    assert found is not None
    sides = [each["before"]["category"] for each in found["detections"]]
    assert sides == ["cat", "dog", "label 3"]
    assert (found["same_picture"], found["same_request"]) == (False, True)
    assert [
        (
            each["before"] and each["before"]["score"],
            each["after"] and each["after"]["score"],
            each.get("iou"),
            each.get("heatmap_similarity"),
        )
        for each in found["detections"]
    ] == [(0.9, 0.95, 1.0, 1.0), (0.8, 0.6, 0.5, 0.0), (0.7, None, None, None)]
