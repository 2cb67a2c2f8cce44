"""A real nginx that runs the recipe of docs/production.md, on loopback ports and in one folder."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from archives.serving.server_config import Ports, choose_ports

DOCS = Path(__file__).parent.parent / "docs"
# Where systems keep it is not on everybody's path.
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Nginx:
    """folder: all that it reads and writes. tokens: the clients', by name."""

    folder: Path
    port: int
    metrics_port: int
    tokens: dict[str, str]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def include(self) -> Path:
        """What `rotate --nginx-include` writes."""
        return self.folder / "token.conf"

    def logs(self) -> str:
        return "".join(file.read_text() for file in self.folder.glob("*.log"))

    def command(self, *arguments: str) -> list[str]:
        assert NGINX is not None
        return [NGINX, "-c", str(self.folder / "nginx.conf"), *arguments]

    def reload(self) -> None:
        """As the recipe does it."""
        subprocess.run(self.command("-s", "reload"), check=True, capture_output=True)


@contextmanager
def started(folder: Path, inference_port: int, metrics_port: int, token: str) -> Iterator[Nginx]:
    """The recipe's nginx before the server at these ports, with that inference token."""
    ports = choose_ports(DOCS, Ports())
    nginx = Nginx(
        folder,
        ports.inference,
        ports.metrics,
        {name: secrets.token_hex(32) for name in ("alice", "bob", "carol")},
    )
    text = (DOCS / "nginx.conf").read_text()
    [metrics] = re.findall(r"^```nginx\n(.*?)^```", production(), re.MULTILINE | re.DOTALL)
    text = text.rstrip().removesuffix("}") + metrics + "}\n"
    for placeholder, filled in {
        "user www-data;": f"user {getuser()};",
        "/etc/whybox": str(folder),
        "/run/whybox": str(folder),
        "/opt/whybox/docs": str(DOCS),
        "include mime.types;": "types { text/html html; text/css css; text/javascript js; }",
        "/run/nginx.pid": str(folder / "nginx.pid"),
        "/var/log/nginx": str(folder),
        "listen 443 ssl": f"listen 127.0.0.1:{nginx.port} ssl",
        "listen 9443 ssl": f"listen 127.0.0.1:{nginx.metrics_port} ssl",
        "whybox.example.org": "localhost",
        "127.0.0.1:8080": f"127.0.0.1:{inference_port}",
        "127.0.0.1:8082": f"127.0.0.1:{metrics_port}",
        "http {\n": "http {\n" + "".join(f"{n}_temp_path {folder}/{n};\n" for n in TEMPORARY),
    }.items():
        assert placeholder in text
        text = text.replace(placeholder, filled)
    (folder / "nginx.conf").write_text(text)
    clients = [f'"Bearer {token}" {name};\n' for name, token in nginx.tokens.items()]
    (folder / "clients.conf").write_text("".join(clients))
    nginx.include.write_text(f'proxy_set_header Authorization "Bearer {token}";\n')
    write_certificate(folder, "certificate.pem", "key.pem")
    write_certificate(folder, "prometheus.pem", "prometheus-key.pem")
    with (folder / "console.log").open("wb") as log:
        process = subprocess.Popen(nginx.command("-g", "daemon off;"), stdout=log, stderr=log)
        try:
            wait_for(nginx, process)
            yield nginx
        finally:
            process.terminate()
            process.wait(30)


def production() -> str:
    return (DOCS / "production.md").read_text()


def wait_for(nginx: Nginx, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with suppress(OSError), socket.create_connection(("127.0.0.1", nginx.port), timeout=5):
            return
        assert process.poll() is None, nginx.logs()
        time.sleep(0.1)
    raise AssertionError(nginx.logs())


def write_certificate(folder: Path, certificate: str, key: str) -> None:
    """Of localhost, signed by itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    (folder / certificate).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / key).write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
