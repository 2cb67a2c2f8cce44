"""build, verify, schemas: from a model to an archive."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from archives.commands.command import DONE, Commands, add_command, tell
from archives.commands.registry_option import add_registry
from archives.commands.signing import add_public_key, signers
from archives.errors import UsageError
from archives.location import Fetched, fetched
from archives.names import SIGNATURE_SUFFIX
from archives.refusals import naming
from archives.signatures.model_signing import BUNDLE_SUFFIX
from archives.verify import verify
from handlers.manifest import Manifest


def add_commands(commands: Commands) -> None:
    """build, verify and schemas."""
    build = add_command(commands, "build", _build, "build a .mar archive")
    build.add_argument(
        "--detector",
        required=True,
        metavar="NAME|FILE",
        help="an architecture, or a .yaml file that describes a YOLO-like detector's output",
    )
    build.add_argument(
        "--model-file",
        type=Path,
        metavar="FILE",
        help="Python code that goes into the archive: a network, or a detector of your own",
    )
    build.add_argument(
        "--weights",
        required=True,
        metavar="random|COCO_V1|FILE",
        help="random, a name of torchvision's weights, a .safetensors, .pth or .pt file;"
        " TorchScript where the description says so, for transformers a folder",
    )
    build.add_argument(
        "--categories",
        type=Path,
        metavar="FILE",
        help="names, one a line, without a background; else those that come with the weights",
    )
    build.add_argument("--name", required=True, help="the model's name in URLs")
    build.add_argument("--version", required=True, help="numbers, as in 1.0")
    build.add_argument("--export-path", required=True, type=Path, metavar="FOLDER")
    build.add_argument(
        "--allow-bucket",
        action="append",
        default=[],
        dest="buckets",
        metavar="NAME",
        help="requests may name objects of this S3 bucket instead of sending a picture",
    )
    build.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a model-config.yaml whose keys replace ours: batching, timeouts, workers; under"
        " `whybox` the defaults and buckets",
    )
    build.add_argument(
        "--default",
        action="append",
        default=[],
        type=_default,
        dest="defaults",
        metavar="FIELD=VALUE",
        help="what a request is that does not say otherwise: method=layercam, score_threshold=0.7",
    )
    build.add_argument(
        "--golden-picture",
        type=Path,
        metavar="FILE",
        help="a small picture whose explanations go into the archive, and which it has to explain"
        " alike ever after; else one is drawn",
    )
    build.add_argument(
        "--source-revision",
        metavar="TEXT",
        help="the commit of the code that is packed, where git does not tell"
        " (WHYBOX_SOURCE_REVISION)",
    )
    build.add_argument("--force", action="store_true", help="replace an archive that is there")

    check = add_command(
        commands,
        "verify",
        _verify,
        "check archives: their structure, their digests, and that they load and give what their"
        " golden sample says",
    )
    check.add_argument("archives", nargs="+", metavar="FILE|URI|NAME@ALIAS")
    check.add_argument(
        "--static",
        action="store_true",
        help="do not load them, which runs their code: for archives from who knows where",
    )
    check.add_argument("--device", default="cpu", help="where they are loaded: cpu or cuda")
    add_registry(check)
    add_public_key(check)

    schemas = add_command(
        commands, "schemas", _schemas, "write JSON Schemas of requests and answers"
    )
    schemas.add_argument("--output", required=True, type=Path, metavar="FOLDER")


def _build(options: argparse.Namespace) -> int:
    # Imported here: torch takes seconds to load, and the other commands do without it.
    from archives.building.build import build
    from archives.building.model import BuildOptions
    from handlers.detectors.registry import DetectorError

    wanted = BuildOptions(
        detector=options.detector,
        weights=options.weights,
        name=options.name,
        version=options.version,
        export_path=options.export_path,
        categories=options.categories,
        force=options.force,
        model_file=options.model_file,
        buckets=tuple(options.buckets),
        config=options.config,
        defaults=dict(options.defaults),
        golden_picture=options.golden_picture,
        source_revision=options.source_revision,
    )
    try:
        path = build(wanted)
    except DetectorError as error:
        raise UsageError(str(error)) from error
    manifest = verify(path)
    tell(options, described(path, manifest), in_words(path, manifest))
    return DONE


def _default(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected FIELD=VALUE")
    return name, value


def _verify(options: argparse.Namespace) -> int:
    from archives.load_check import check_loads  # loads numpy

    with tempfile.TemporaryDirectory(prefix="whybox-verify-") as private:
        places = [
            (text, _own(fetched(text, folder / "fetched", options.registry), folder))
            for number, text in enumerate(options.archives)
            for folder in [Path(private, str(number))]
        ]
        with naming({each.path: text for text, each in places}):
            signed_by = signers(options, [each for _, each in places])  # before all are read
            # All are looked at before the code of any runs.
            found = [(text, each.path, verify(each.path)) for text, each in places]
            for _, path, _ in found:
                if not options.static:
                    check_loads(path, options.device)
    values = {
        "archives": [
            {**described(text, manifest), "signed_by": signed_by.get(path)}
            for text, path, manifest in found
        ]
    }
    lines = [
        in_words(text, manifest) + (f", signed by {signed_by[path]}" if path in signed_by else "")
        for text, path, manifest in found
    ]
    tell(options, values, "\n".join(lines))
    return DONE


def _own(archive: Fetched, folder: Path) -> Fetched:
    """A copy that nobody else can change between its checks, with its signatures beside it."""
    if not archive.path.is_file():
        return archive
    copy = folder / "copy" / archive.path.name
    copy.parent.mkdir(parents=True)
    for suffix in ("", SIGNATURE_SUFFIX, BUNDLE_SUFFIX):
        there = archive.path.with_name(archive.path.name + suffix)
        if there.is_file():
            shutil.copyfile(there, copy.with_name(copy.name + suffix))
    signature = copy.with_name(copy.name + SIGNATURE_SUFFIX)
    return Fetched(copy, signature if signature.is_file() else None)


def described(path: Path | str, manifest: Manifest) -> dict[str, Any]:
    """An archive as --json tells it."""
    return {
        "archive": str(path),
        "name": manifest.name,
        "version": manifest.version,
        "architecture": manifest.architecture,
        "categories": len(_categories(manifest)),
        "digest": manifest.digest,
        "source_revision": manifest.source_revision,
        "own_code": manifest.own_code(),
    }


def in_words(path: Path | str, manifest: Manifest) -> str:
    """The same as a line of text."""
    own = manifest.own_code()
    return (
        f"{path}: {manifest.name} {manifest.version}, {manifest.architecture},"
        f" {len(_categories(manifest))} categories, digest {manifest.digest}"
        + (f", brings {own}" if own else "")
    )


def _categories(manifest: Manifest) -> tuple[str, ...]:
    return manifest.categories[manifest.categories[:1] == ("__background__",) :]


def _schemas(options: argparse.Namespace) -> int:
    from archives.building.build import write_schemas  # as for _build
    from archives.registry.audit_report import write_schema

    write_schemas(options.output)
    write_schema(options.output)
    tell(options, {"folder": str(options.output)}, f"wrote JSON Schemas into {options.output}")
    return DONE
