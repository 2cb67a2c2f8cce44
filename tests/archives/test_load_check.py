"""What `verify` finds: each kind of damage has its own word."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from archives import own_code
from archives.__main__ import main
from archives.golden import EXPECTED, HEATMAPS, golden_files, read_golden
from archives.load_check import check_loads
from archives.refusals import DoesNotLoadError, OtherResultsError
from handlers.manifest import FORMAT_VERSION, MANIFEST_NAME
from tests.archives.golden_stub import (
    EXPLAINER,
    EXPLANATIONS,
    MAPS,
    REQUEST,
    packed,
    stub_files,
    write_stub,
)
from tests.archives.test_verify import tiny_files

OTHER_SCORE = [EXPLANATIONS[0] | {"score": 0.51}, EXPLANATIONS[1]]
OTHER_MAP = [MAPS[0], MAPS[1] * np.float32(1.01)]
STUB = packed(stub_files())


def altered(score: bool) -> bytes:
    """A golden sample that was altered, and all digests taken anew."""
    changed = golden_files(
        b"x", REQUEST, OTHER_SCORE if score else EXPLANATIONS, MAPS if score else OTHER_MAP
    )
    name = EXPECTED if score else HEATMAPS
    return packed(stub_files({name: changed[name]}))


def coded(text: str, name: str = "handlers/explainer.py") -> bytes:
    return packed(stub_files({name: text.encode()}))


def without(*names: str) -> bytes:
    return packed({key: data for key, data in stub_files().items() if key not in names})


def newer() -> bytes:
    files = stub_files()
    values = json.loads(files[MANIFEST_NAME]) | {"format": FORMAT_VERSION + 1}
    return packed(files | {MANIFEST_NAME: json.dumps(values).encode()})


def with_entry(name: str) -> bytes:
    return packed(stub_files() | {name: b"x"})


CASES = {
    "fine": (STUB, 0, "", ""),
    "tampered": (packed(stub_files() | {"torch.py": b""}), 5, "tampered", "torch.py has sha256"),
    "changed byte": (STUB.replace(b"use_determ", b"use_Determ"), 5, "tampered", "Bad CRC-32"),
    "truncated": (STUB[:-300], 5, "truncated", "is truncated or damaged"),
    "half": (STUB[: len(STUB) // 2], 5, "truncated", "fetch or build it again"),
    "not an archive": (b"hello", 2, "unusable", "not a .mar archive"),
    "pickle": (packed(stub_files({"a.pkl": b"x"})), 5, "pickle", "pickles can run code"),
    "bomb": (
        packed(stub_files({"a.py": b" " * 10**6}), zipfile.ZIP_DEFLATED),
        5,
        "zip-bomb",
        "a.py is a zip bomb",
    ),
    "path": (with_entry("../a.py"), 5, "escaping-path", "would leave the archive's folder"),
    "no weights": (without("weights.safetensors"), 2, "missing-weights", "has no weights"),
    "newer": (newer(), 2, "newer-format", "update Whybox"),
    "other score": (altered(score=True), 5, "other-results", "score 0.500000 instead of 0.510000"),
    "other map": (altered(score=False), 5, "other-results", "its heatmap differs by 0.0099"),
    "other code": (
        coded(EXPLAINER.replace("(1.0, 2.0", "(1.5, 2.0")),
        5,
        "other-results",
        "found 0.5 px away",
    ),
    "other versions": (
        packed(
            stub_files(
                {EXPECTED: b'{"request": {}, "explanations": []}'}
                | golden_files(b"x", REQUEST, OTHER_SCORE, MAPS),
                torch="1.0",
                torchvision="0.1",
            )
        ),
        5,
        "wrong-versions",
        "it was built with torch 1.0, here is",
    ),
    "no golden sample": (packed(tiny_files()), 2, "no-golden-sample", "has no golden sample"),
    "lost golden sample": (
        packed({k: v for k, v in stub_files().items() if k != EXPECTED}),
        5,
        "tampered",
        "are missing: ['golden/expected.json']",
    ),
    "broken code": (coded("import nothing"), 2, "does-not-load", "No module named 'nothing'"),
    "code that exits": (coded("import os; os._exit(3)"), 2, "does-not-load", "ended with 3"),
    "code that dies": (
        coded("import os; os.kill(os.getpid(), 9)"),
        2,
        "does-not-load",
        "was ended by SIGKILL",
    ),
    "odd answers": (
        coded(EXPLAINER.replace("dtype=np.float32", "dtype=np.float64")),
        2,
        "does-not-load",
        "map 0 should be float32",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_verify_tells_them_apart(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, code, problem, text = CASES[case]
    (tmp_path / "some.mar").write_bytes(data)
    assert main(["verify", "--json", str(tmp_path / "some.mar")]) == code
    out, err = capsys.readouterr()
    error = json.loads(out).get("error", {"problem": "", "message": ""})
    assert error["problem"] == problem
    assert text in error["message"]
    assert err.count("\n") == bool(code)
    assert [file.name for file in tmp_path.iterdir()] == ["some.mar"]


def test_static_runs_no_code(tmp_path: Path) -> None:
    path = write_stub(tmp_path / "some.mar", {"handlers/explainer.py": b"import nothing"})
    assert main(["verify", "--static", str(path)]) == 0


def test_no_code_runs_before_all_are_looked_at(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w')".encode()
    first = write_stub(tmp_path / "first.mar", {"handlers/explainer.py": code})
    second = write_stub(tmp_path / "second.mar", without="torch.py")
    assert main(["verify", str(first), str(second)]) == 5
    assert not mark.exists()


def test_archives_of_earlier_formats_are_loaded(tmp_path: Path) -> None:
    files = stub_files()
    values = json.loads(files[MANIFEST_NAME]) | {"format": 3}
    del values["source_revision"]
    path = tmp_path / "old.mar"
    path.write_bytes(packed(files | {MANIFEST_NAME: json.dumps(values).encode()}))
    check_loads(path)


def test_its_process_gets_no_credentials_and_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    code = b"import os; raise ValueError(sorted(os.environ.items()))"
    with pytest.raises(DoesNotLoadError, match="'OMP_NUM_THREADS', '1'") as caught:
        check_loads(write_stub(tmp_path / "a.mar", {"handlers/images.py": code}))
    assert "secret" not in str(caught.value)
    monkeypatch.setattr(own_code, "SECONDS", 0.5)
    code = b"import time; time.sleep(60)"
    with pytest.raises(DoesNotLoadError, match=r"did not end within 0.5 seconds"):
        check_loads(write_stub(tmp_path / "b.mar", {"handlers/images.py": code}))


def test_a_real_archive_with_another_golden_sample(archive: Path, tmp_path: Path) -> None:
    check_loads(archive)
    golden = read_golden(archive)
    assert len(golden.expected.labels) == (golden.request["candidates"] or 1)
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    values = json.loads(files[EXPECTED])
    values["explanations"][0]["score"] += 0.001
    files[EXPECTED] = json.dumps(values).encode()
    path = redigested(files, EXPECTED, tmp_path / "altered.mar")
    with pytest.raises(OtherResultsError, match=r"score .* instead of"):
        check_loads(path)


def redigested(files: dict[str, bytes], name: str, path: Path) -> Path:
    manifest = json.loads(files[MANIFEST_NAME])
    manifest["files"][name] = hashlib.sha256(files[name]).hexdigest()
    files[MANIFEST_NAME] = json.dumps(manifest).encode()
    path.write_bytes(packed(files))
    return path
