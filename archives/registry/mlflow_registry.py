"""Archives in an MLflow model registry: publish them there, name them by alias, pull them back.

An archive is a model version whose artifacts are NAME.mar, NAME.mar.sig and whybox.json, and whose
tags say which archive that is. MLflow numbers versions itself, so ours is looked up by its tag.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archives.errors import (
    ConflictError,
    MissingObjectError,
    UnsafeError,
    UsageError,
    shortened,
)
from archives.names import NAME, VERSION
from archives.registry.mlflow_client import download, open_client, served_path, translated, upload
from archives.signatures.signing import adds_signatures, check_statement
from archives.verify import MAX_BYTES, MAX_HEADER, verify
from handlers.manifest import MANIFEST_NAME

# As MLflow has them, less what would be read as a version.
ALIAS = re.compile(r"(?!(latest|[vV]?[0-9]+)$)[A-Za-z0-9_-]{1,255}")
MAX_SIGNATURE = 2**20
PAGE = 200


@dataclass(frozen=True)
class MlflowOptions:
    """Which server, and where on it.

    tracking_uri: its http(s) address.
    experiment: the one under which publishing makes a run for each version; it is made if missing.
    """

    tracking_uri: str
    experiment: str = "whybox"


@dataclass(frozen=True)
class ModelVersion:
    """An archive in the registry.

    number: MLflow's own of this version. digest: the manifest's; sha256: the file's; signature: the
    signature file's sha256, "" for none. All hex. created: this call made it.
    """

    name: str
    version: str
    number: str
    digest: str
    sha256: str
    architecture: str
    signature: str = ""
    created: bool = False

    def tags(self) -> dict[str, str]:
        """What the registry keeps of it."""
        return {f"whybox.{key}": value for key in TAGS if (value := getattr(self, key))}


TAGS = ("version", "digest", "sha256", "architecture", "signature")


def publish(archive: Path, signature: Path | None, options: MlflowOptions) -> ModelVersion:
    """Verifies the archive and makes it a version of the registered model of its name.

    The same archive again changes nothing; a signature is added to those that are there. Raises
    ConflictError if the registry has this version with other bytes or a signature that this one
    lacks, SignatureError for a signature of other bytes, ArchiveError and UnsafeArchiveError as
    `verify`, and the errors of `translated`.
    """
    manifest = verify(archive)
    if signature:
        check_statement(archive, signature)
    wanted = ModelVersion(
        name=manifest.name,
        version=manifest.version,
        number="",
        digest=manifest.digest,
        sha256=_sha256(archive),
        architecture=manifest.architecture,
        signature=_sha256(signature) if signature else "",
    )
    client = open_client(options.tracking_uri)
    with translated(options.tracking_uri):
        _ensure_model(client, wanted.name)
        found = _with_version(client, wanted.name, wanted.version)
        if found is None:
            found = _create(client, archive, signature, wanted, options)
        _check_same(found, wanted, options)
        if signature and found.signature != wanted.signature:
            if found.signature:
                _check_adds(client, signature, found, options)
            found = _add_signature(client, signature, found, wanted, options)
    return found


def set_alias(name: str, alias: str, version: str, options: MlflowOptions) -> ModelVersion:
    """Has `alias` name this version (ours) from now on, whatever it named before.

    MLflow knows no condition here and keeps no history: of two at once the last one wins, and
    neither is told. Raises UsageError for an alias that MLflow does not take, MissingObjectError
    for a version that is not there, and the errors of `translated`.
    """
    check_alias(alias)
    client = open_client(options.tracking_uri)
    with translated(options.tracking_uri):
        found = _find(client, name, version)
        client.set_registered_model_alias(name, alias, found.number)
    return found


def pull(
    name: str, alias_or_version: str, folder: Path, options: MlflowOptions, force: bool = False
) -> Path:
    """Fetches NAME.mar, its signature and its manifest into `folder`; the archive's path.

    force: replaces what is there; otherwise UsageError is raised.
    The archive passes `verify`, and is the one of the version's tags. That these come from the same
    server as the archive: against a server that lies, check the signature. Raises UnsafeError for
    another archive, MissingObjectError for a name, alias, version or file that is not there, and
    the errors of `translated`. Nothing is written unless all is well.
    """
    client = open_client(options.tracking_uri)
    with translated(options.tracking_uri):
        found = _find(client, name, alias_or_version)
        source = client.get_model_version_download_uri(name, found.number)
    place = served_path(options.tracking_uri, str(source))
    for file in (f"{name}.mar", f"{name}.mar.sig", MANIFEST_NAME):
        if Path(folder, file).exists() and not force:
            raise UsageError(f"{folder / file} is there already; give --force to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as scratch:
        limits = {f"{name}.mar.sig": MAX_SIGNATURE, MANIFEST_NAME: MAX_HEADER}
        limits[f"{name}.mar"] = MAX_BYTES  # last, so that it is there only with the others
        if not found.signature:
            del limits[f"{name}.mar.sig"]
        digests = {
            file: download(options.tracking_uri, f"{place}/{file}", Path(scratch, file), limit)
            for file, limit in limits.items()
        }
        _check_pulled(Path(scratch), found, digests)
        if not found.signature:
            Path(folder, f"{name}.mar.sig").unlink(missing_ok=True)  # of another version
        for file in limits:
            os.replace(Path(scratch, file), folder / file)
    return folder / f"{name}.mar"


def check_alias(alias: str) -> None:
    """Raises UsageError for an alias that MLflow does not take, or that looks like a version."""
    if not ALIAS.fullmatch(alias):
        raise UsageError(
            f"alias: expected letters, digits, _ and -, neither latest nor a number, got"
            f" {shortened(alias)!r}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:  # Someone else made it just now.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _create(
    client: Any, archive: Path, signature: Path | None, wanted: ModelVersion, options: MlflowOptions
) -> ModelVersion:
    """Uploads first, so that a version that is there is whole. Of several writers of one version
    the one with the lowest number stays, which each of them sees alike."""
    name = wanted.name
    run = client.create_run(
        _experiment(client, options.experiment), run_name=f"{name} {wanted.version}"
    )
    run_id, source = run.info.run_id, f"{run.info.artifact_uri}/{name}"
    try:
        place = served_path(options.tracking_uri, source)
        with tempfile.TemporaryDirectory() as scratch:
            manifest = Path(scratch, MANIFEST_NAME)
            manifest.write_bytes(verify(archive).to_json())
            upload(options.tracking_uri, f"{place}/{MANIFEST_NAME}", manifest)
        upload(options.tracking_uri, f"{place}/{name}.mar", archive)
        if signature:
            upload(options.tracking_uri, f"{place}/{name}.mar.sig", signature)
        made = client.create_model_version(
            name, source, run_id, tags=wanted.tags(), await_creation_for=0
        )
    except BaseException:
        with suppress(Exception):  # The first error tells more.
            client.set_terminated(run_id, "FAILED")
        raise
    first = _with_version(client, name, wanted.version)
    if first is not None and first.number != str(made.version):
        client.delete_model_version(name, str(made.version))
        client.set_terminated(run_id, "KILLED")
        return first
    client.set_terminated(run_id)
    return replace(wanted, number=str(made.version), created=True)


def _check_same(found: ModelVersion, wanted: ModelVersion, options: MlflowOptions) -> None:
    title = f"{wanted.name} {wanted.version}"
    if (found.digest, found.sha256) != (wanted.digest, wanted.sha256):
        raise ConflictError(
            f"{options.tracking_uri} has {title} with other bytes: sha256 {found.sha256[:12]}..."
            f" and not {wanted.sha256[:12]}...; a version never changes, so give this one a new"
            " --version"
        )


def _check_adds(client: Any, signature: Path, found: ModelVersion, options: MlflowOptions) -> None:
    """Raises ConflictError unless `signature` has all those that are there."""
    source = client.get_model_version_download_uri(found.name, found.number)
    place = served_path(options.tracking_uri, str(source))
    with tempfile.TemporaryDirectory(prefix="whybox-") as scratch:
        there, file = Path(scratch, "signature"), f"{found.name}.mar.sig"
        download(options.tracking_uri, f"{place}/{file}", there, MAX_SIGNATURE)
        if not adds_signatures(there.read_bytes(), signature.read_bytes()):
            raise ConflictError(
                f"{options.tracking_uri} has {found.name} {found.version} with another signature,"
                " which this one does not contain: signatures are added, and none is lost; pull it,"
                " sign that and publish it"
            )


def _add_signature(
    client: Any, signature: Path, found: ModelVersion, wanted: ModelVersion, options: MlflowOptions
) -> ModelVersion:
    source = client.get_model_version_download_uri(found.name, found.number)
    place = served_path(options.tracking_uri, str(source))
    upload(options.tracking_uri, f"{place}/{found.name}.mar.sig", signature)
    client.set_model_version_tag(found.name, found.number, "whybox.signature", wanted.signature)
    return replace(found, signature=wanted.signature)


def _find(client: Any, name: str, alias_or_version: str) -> ModelVersion:
    """The version that `alias_or_version` names; raises MissingObjectError."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{shortened(name)!r} is no archive's name: letters, digits, _ . -")
    if VERSION.fullmatch(alias_or_version):
        found = _with_version(client, name, alias_or_version)
        if found is None:
            versions = sorted(each.version for each in _versions(client, name))
            raise MissingObjectError(
                f"the registry has no {name} {alias_or_version}; it has"
                f" {shortened(', '.join(versions)) or 'none that Whybox published'}"
            )
        return found
    check_alias(alias_or_version)
    aliases = client.get_registered_model(name).aliases
    if alias_or_version not in aliases:
        raise MissingObjectError(
            f"{name} has no alias {alias_or_version}; it has"
            f" {shortened(', '.join(sorted(aliases))) or 'none'}"
        )
    number = str(aliases[alias_or_version])
    read = _read(client.get_model_version(name, number))
    if read is None:
        raise UsageError(
            f"{name}@{alias_or_version} is MLflow's version {number}, which mlflow-publish did not"
            " make: it lacks the whybox tags"
        )
    return read


def _with_version(client: Any, name: str, version: str) -> ModelVersion | None:
    """The one of this version of ours: of several that race to be it, the first."""
    found = [each for each in _versions(client, name) if each.version == version]
    return min(found, key=lambda each: int(each.number), default=None)


def _versions(client: Any, name: str) -> list[ModelVersion]:
    found: list[ModelVersion] = []
    token: str | None = ""
    while token is not None:
        page = client.search_model_versions(f"name='{name}'", PAGE, page_token=token or None)
        found += [each for each in map(_read, page) if each]
        token = page.token or None
    return found


def _read(version: Any) -> ModelVersion | None:
    """None for a version that Whybox did not publish."""
    values = {key: version.tags.get(f"whybox.{key}", "") for key in TAGS}
    if not all(values[key] for key in ("version", "digest", "sha256")):
        return None
    return ModelVersion(name=version.name, number=str(version.version), **values)


def _check_pulled(folder: Path, found: ModelVersion, digests: dict[str, str]) -> None:
    """Raises UnsafeError unless the files in `folder` are what the tags say."""
    name = found.name
    expected = {f"{name}.mar": found.sha256, f"{name}.mar.sig": found.signature}
    for file, sha256 in expected.items():
        if digests.get(file, "") != sha256:
            raise UnsafeError(
                f"{file} on the MLflow server was changed: its sha256 is"
                f" {digests.get(file, '')[:12]}... and not {shortened(sha256)[:12]}... as its tag"
                " says; publish it as a new version"
            )
    manifest = verify(folder / f"{name}.mar")
    told = (manifest.name, manifest.version, manifest.digest)
    if told != (name, found.version, found.digest):
        raise UnsafeError(
            f"{name}.mar is {manifest.name} {manifest.version} of digest {manifest.digest[:12]}...,"
            f" and not {name} {found.version} of {found.digest[:12]}... as its tags say"
        )
    if (folder / MANIFEST_NAME).read_bytes() != manifest.to_json():
        raise UnsafeError(f"{MANIFEST_NAME} on the MLflow server is not that of {name}.mar")
