"""Archives that bring a model file, TorchScript, or a description of a layout."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from archives.__main__ import main
from archives.verify import UnsafeArchiveError, verify
from handlers.explainer import Explainer
from handlers.manifest import FORMAT_VERSION, MANIFEST_NAME, ArchiveError, Manifest
from tests.other_detectors import MODEL_FILE, NAMES, YOLO, build_other

RAISING = "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        "


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_other("yolo", tmp_path_factory.mktemp("yolo"))


def build_with(
    folder: Path, description: str = YOLO, code: str = MODEL_FILE, name: str = "network.py"
) -> int:
    (folder / "names.txt").write_text(NAMES)
    (folder / "layout.yaml").write_text(description)
    (folder / name).write_text(code)
    command = ["build", "--detector", str(folder / "layout.yaml"), "--weights", "random"]
    command += ["--model-file", str(folder / name), "--categories", str(folder / "names.txt")]
    return main([*command, "--name", "n", "--version", "1", "--export-path", str(folder / "out")])


ONE = "layout: yolov8\nhead: head\n"


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ("layout: [", "is not YAML"),
        ("- 1", "should be a table with `layout`, `head`"),
        ("layout: yolov8\n", "head: missing"),
        ("layout: yolo\nhead: h\n", "layout: got 'yolo'; expected one of rtmdet"),
        (f"{ONE}strides: !!set {{8, 16}}\n", "holds what JSON cannot"),
        (f"{ONE}network: &a\n  arguments: *a\n", "holds what JSON cannot"),
        (f"{ONE}bins: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        (f"{ONE}network: 5\n", "network: got 5; expected torchscript, or a table"),
        (f"{ONE}bins: x\n", "bins: got 'x'; expected a whole number"),
        (f"{ONE}network: {{class: Nothing}}\n", "defines no module Nothing"),
        (YOLO.replace("classes: 3", "classes: -1"), "cannot be built: RuntimeError"),
        (YOLO.replace("classes: 3", "classes: 4"), "expected [B, 67, 16, 20]"),
        (YOLO.replace("head: head", "head: body.0"), "body.0 takes [1, 3, 128, 160]; expected 3"),
    ],
)
def test_descriptions_that_do_not_fit(
    description: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_with(tmp_path, description) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["torch.py", "json.py", "Handlers.py", "Explain_Handler.py", "__init__.py", "a-b.py"]
)
def test_names_that_other_modules_have(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build_with(tmp_path, name=name) == 2
    assert f"model file: got {name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys\nsys.exit(7)\n", "cannot be run: SystemExit"),
        (f"{RAISING}raise KeyError('a')\n", "Net cannot be built: KeyError"),
        (
            f"{RAISING}super().__init__()\n        self.head = torch.nn.Conv2d(1, 1, 1)\n"
            "    def forward(self, x):\n        raise RuntimeError('a shape')\n",
            "the network fails on a blank picture: RuntimeError: a shape",
        ),
    ],
)
def test_model_files_that_fail(
    code: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = f"{ONE}network: {{class: Net}}\n"
    assert build_with(tmp_path, description, code) == 2
    assert text in capsys.readouterr().err


def test_a_changed_model_file_is_refused(yolo: Path, tmp_path: Path) -> None:
    assert verify(yolo).model_file == "network.py"
    changed = tmp_path / "changed.mar"
    with zipfile.ZipFile(yolo) as opened, zipfile.ZipFile(changed, "w") as out:
        for info in opened.infolist():
            data = opened.read(info)
            out.writestr(info, data + b"#" if info.filename == "network.py" else data)
    with pytest.raises(UnsafeArchiveError, match=r"network.py has sha256"):
        verify(changed)
    with pytest.raises(ArchiveError, match=r"network.py does not have the digest"):
        Explainer.from_archive(changed, run_code=True)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"defaults": {}', '"defaults": 5', "values of wrong types"),
        ('"layout": "yolov8"', '"layout": [1]', r"layout: got \[1\]"),
        ('"layout": "yolov8"', '"cls": 1', "layout: got ''"),
        ('"head": "head"', '"head": "head", "bins": "x"', "bins: got 'x'"),
        (f'"format": {FORMAT_VERSION}', '"format": true', "has no format number"),
        ('"model_file": "network.py"', '"model_file": "handlers"', "has no handlers"),
    ],
)
def test_manifests_written_by_hand(
    old: str, new: str, text: str, yolo: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(yolo) as opened:
        opened.extractall(tmp_path)
    manifest = tmp_path / MANIFEST_NAME
    written = manifest.read_text()
    assert old in written
    manifest.write_text(written.replace(old, new))
    with pytest.raises(ArchiveError, match=text):
        Explainer.from_archive(tmp_path, run_code=True)


def test_archives_of_format_2_are_read(demo_archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(demo_archive) as opened:
        opened.extractall(tmp_path)
    values = (tmp_path / MANIFEST_NAME).read_text()
    for line in (' "layout": {},\n', ' "model_file": "",\n', ' "network": "",\n'):
        assert line in values
        values = values.replace(line, "")
    (tmp_path / MANIFEST_NAME).write_text(
        values.replace(f'"format": {FORMAT_VERSION}', '"format": 2')
    )
    assert Manifest.from_json((tmp_path / MANIFEST_NAME).read_bytes()).format == 2
    assert Explainer.from_archive(tmp_path).categories[0] == "__background__"
    shutil.rmtree(tmp_path / "handlers")
