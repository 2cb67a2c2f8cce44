"""Building a .mar archive: the detector's weights, the code that explains it, and its manifest."""

from __future__ import annotations

import filecmp
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
import torchvision

import handlers
from archives import own_code
from archives.building import bill_of_materials
from archives.building.golden_picture import golden_picture
from archives.building.model import TORCHSCRIPT_FILE, BuildOptions, Model, read_model
from archives.building.model_config import MODEL_CONFIG, ModelConfig, read_model_config
from archives.building.source_revision import source_revision
from archives.building.weights import WEIGHTS
from archives.errors import UsageError
from archives.golden import golden_files
from archives.names import NAME, SIGNATURE_SUFFIX, VERSION
from archives.refusals import DoesNotLoadError
from archives.verify import TORCHSERVE_MANIFEST, verify
from handlers.endpoint.json_schema import schemas
from handlers.fields import RequestError, parse_option
from handlers.manifest import MANIFEST_NAME, Manifest
from handlers.schema import ExplainRequest

__all__ = ["BuildError", "BuildOptions", "build"]

PACKAGE = Path(handlers.__file__).parent
HANDLER = "explain_handler.py"
SCHEMAS = "schemas"
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # as S3 has it
# The earliest time that a zip can hold: when something was built is not part of what it is.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


class BuildError(UsageError):
    """Options from which no archive can be built; the message says what to change."""


def build(options: BuildOptions) -> Path:
    """Builds and verifies the archive; the same inputs give the same bytes.

    Its own code runs once, in a process of its own, for the golden sample. Raises BuildError and
    other UsageErrors, WeightsError (UnsafeWeightsError for a pickle that needs more than
    weights_only, WeightsUnavailableError for a failed download) or DetectorError (weights that do
    not fit). What was at the archive's path stays until the new one is complete.
    """
    config = _model_config(options)
    target = _checked_target(options, config)
    picture = golden_picture(options.golden_picture)
    revision = source_revision(PACKAGE, options.source_revision)
    model = read_model(options)
    options.export_path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="whybox-build-") as folder:
        content = Path(folder, "content")
        _write_content(content, model, config)
        manifest = Manifest(
            name=options.name,
            version=options.version,
            architecture=model.source.architecture,
            categories=model.categories,
            files=_digests(content),
            weights=_weights_file(model),
            options=dict(model.source.options),
            defaults=dict(config.defaults),
            layout=dict(model.source.layout),
            network=model.source.network,
            model_file=model.source.model_file[0] if model.source.model_file else "",
            torch=torch.__version__,
            torchvision=torchvision.__version__,
            whybox=_own_version(),
            source_revision=revision,
        )
        (content / MANIFEST_NAME).write_bytes(manifest.to_json())
        more = _bill_of_materials(manifest, config)
        if options.golden_sample:
            more |= _golden_sample(content, picture)
        manifest = _with_files(content, manifest, more)
        packed = _pack(Path(folder), options, manifest)
        _place(packed, target)
    return target


def _model_config(options: BuildOptions) -> ModelConfig:
    """What the options and their file say together."""
    given = read_model_config(options.config) if options.config else ModelConfig()
    try:
        defaults = {
            name: parse_option(ExplainRequest, name, value)
            for name, value in {**given.defaults, **options.defaults}.items()
        }
        ExplainRequest.from_fields(defaults)
    except RequestError as error:
        raise BuildError(f"default {error}") from error
    as_json = {name: list(v) if isinstance(v, tuple) else v for name, v in defaults.items()}
    return ModelConfig(given.values, options.buckets or given.buckets, as_json)


def _golden_sample(content: Path, picture: bytes) -> dict[str, bytes]:
    try:
        explained = own_code.explain(content, picture, None)
    except DoesNotLoadError as error:
        raise BuildError(
            f"the archive would not work: {error} (it has to explain the golden picture with its"
            " defaults; --default and --golden-picture change these)"
        ) from error
    return golden_files(picture, explained.request, explained.explanations, explained.heatmaps)


def _bill_of_materials(manifest: Manifest, config: ModelConfig) -> dict[str, bytes]:
    packages = [*bill_of_materials.PACKAGES]
    if manifest.architecture == "transformers":
        packages.append("transformers")
    if config.buckets:
        packages.append("boto3")
    return {bill_of_materials.FILE: bill_of_materials.bill_of_materials(manifest, packages)}


def _with_files(content: Path, manifest: Manifest, more: Mapping[str, bytes]) -> Manifest:
    """Writes files into the content, and the manifest that has their digests, too. The others'
    stay: should the archive's code have changed itself meanwhile, it does not verify."""
    for name, data in more.items():
        (content / name).parent.mkdir(exist_ok=True)
        (content / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in more.items()}
    manifest = replace(manifest, files={**manifest.files, **digests})
    (content / MANIFEST_NAME).write_bytes(manifest.to_json())
    return manifest


def _checked_target(options: BuildOptions, config: ModelConfig) -> Path:
    if not NAME.fullmatch(options.name):
        raise BuildError(
            f"name: got {options.name!r}; expected letters, digits, '_', '-' and '.', up to 100,"
            " beginning with a letter or digit"
        )
    if not VERSION.fullmatch(options.version):
        raise BuildError(f"version: got {options.version!r}; expected numbers as in 1.0 or 2.1.3")
    for bucket in config.buckets:
        if not BUCKET.fullmatch(bucket):
            raise BuildError(f"bucket: got {bucket!r}; expected a bucket's name, without s3://")
    target = options.export_path / f"{options.name}.mar"
    if target.exists() and not options.force:
        raise BuildError(f"{target} is there already; give --force to replace it")
    return target


def _weights_file(model: Model) -> str:
    return TORCHSCRIPT_FILE if model.torchscript else WEIGHTS


def _write_content(content: Path, model: Model, config: ModelConfig) -> None:
    for source in sorted(PACKAGE.rglob("*.py")):
        copy = content / PACKAGE.name / source.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    # TorchServe loads the handler by its file name from the archive's root.
    shutil.copyfile(PACKAGE / HANDLER, content / HANDLER)
    if model.source.model_file:
        name, source_code = model.source.model_file
        (content / name).write_bytes(source_code)
    if model.torchscript:
        (content / TORCHSCRIPT_FILE).write_bytes(model.torchscript)
    else:
        # Copies, because safetensors refuses tensors that share memory. No metadata: its order
        # varies.
        separate = {
            name: each.detach().clone().contiguous() for name, each in model.tensors.items()
        }
        safetensors.torch.save_file(separate, content / WEIGHTS)
    (content / MODEL_CONFIG).write_text(config.text(), encoding="utf-8")
    write_schemas(content / SCHEMAS)


def write_schemas(folder: Path) -> None:
    """JSON Schemas of what the endpoint reads and answers, NAME.json each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / f"{name}.json").write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")


def _digests(content: Path) -> dict[str, str]:
    return {
        file.relative_to(content).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(content.rglob("*"))
        if file.is_file()
    }


def _own_version() -> str:
    try:
        return importlib.metadata.version("whybox")
    except importlib.metadata.PackageNotFoundError:
        return handlers.__version__


def _pack(folder: Path, options: BuildOptions, manifest: Manifest) -> Path:
    """torch-model-archiver's archive of folder/content, made reproducible."""
    scratch, raw = folder / "scratch", folder / "raw"
    scratch.mkdir()
    raw.mkdir()
    # The archiver deletes $TMPDIR/NAME before it begins, so it gets a TMPDIR of its own; relative
    # paths, because it takes commas and brackets in --extra-files for lists and patterns.
    command = [sys.executable, "-P", "-m", "model_archiver.model_packaging"]
    command += ["--model-name", options.name, "--version", options.version, "--runtime", "python"]
    command += ["--handler", f"content/{HANDLER}", "--serialized-file"]
    command += [f"content/{manifest.weights}"]
    if manifest.model_file:
        command += ["--model-file", f"content/{manifest.model_file}"]
    command += ["--config-file", f"content/{MODEL_CONFIG}", "--extra-files", "content"]
    command += ["--export-path", "raw", "--archive-format", "zip-store"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"torch-model-archiver failed ({done.returncode}): {done.stderr}")
    packed = folder / "normalised.mar"
    _normalise(raw / f"{options.name}.mar", packed)
    return packed


def _normalise(source: Path, target: Path) -> None:
    """The same files in fixed order with fixed times and permissions, without compression.

    Weights hardly compress, and stored bytes do not depend on the version of zlib.
    """
    with zipfile.ZipFile(source) as opened, zipfile.ZipFile(target, "w") as out:
        for name in sorted(opened.namelist()):
            data = opened.read(name)
            if name == TORCHSERVE_MANIFEST:
                described = json.loads(data)
                described.pop("createdOn")
                data = json.dumps(described, indent=1, sort_keys=True).encode() + b"\n"
            info = zipfile.ZipInfo(name, ZIP_TIME)
            info.create_system = 3  # Unix, on whatever system this runs.
            info.external_attr = 0o100644 << 16
            out.writestr(info, data)


def _place(packed: Path, target: Path) -> None:
    # Verified and complete under another name first, so that nobody meets half an archive. Builds
    # in two containers may have one process id.
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        shutil.copyfile(packed, partial)
        verify(partial)
        if target.exists() and not filecmp.cmp(partial, target, shallow=False):
            # Never one archive beside another's signature.
            target.with_name(target.name + SIGNATURE_SUFFIX).unlink(missing_ok=True)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
