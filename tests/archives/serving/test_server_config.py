from __future__ import annotations

import stat
from pathlib import Path

import pytest

from archives.private_file import write_private
from archives.serving.server import DEFAULT_CONFIG
from archives.serving.server_config import (
    Ports,
    ServerConfigError,
    allowed_digests,
    checked_digests,
    choose_ports,
    public_key_files,
    write_config,
)


def properties(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inference_address", "http://127.0.0.1:8080"),
        ("management_address", "http://127.0.0.1:8081"),
        ("metrics_address", "http://127.0.0.1:8082"),
        ("disable_token_authorization", "false"),
        ("enable_model_api", "false"),
        ("allowed_urls", "none"),
        ("enable_envvars_config", "false"),
        ("install_py_dep_per_model", "false"),
        ("load_models", ""),
    ],
)
def test_what_ships_is_locked_down(name: str, value: str) -> None:
    assert properties(DEFAULT_CONFIG)[name] == value


def test_what_is_served_is_filled_in(tmp_path: Path) -> None:
    models = [("a", "0.mar"), ("b", "1.mar"), ("b", "2.mar")]
    assert write_config(DEFAULT_CONFIG, tmp_path, models, Ports(1, 2, 3, 4, 5)) == 67108864
    written = properties(tmp_path / "config.properties")
    assert written == properties(DEFAULT_CONFIG) | {
        "inference_address": "http://127.0.0.1:1",
        "management_address": "http://127.0.0.1:2",
        "metrics_address": "http://127.0.0.1:3",
        "grpc_inference_port": "4",
        "grpc_management_port": "5",
        "model_store": str(tmp_path / "model_store"),
        "load_models": "a=0.mar,b=1.mar,b=2.mar",
        "metrics_config": str(tmp_path / "metrics.yaml"),
    }


def test_deployable_is_said_and_no_address_allowed(tmp_path: Path) -> None:
    config = tmp_path / "mine.properties"
    config.write_text("allowed_urls=https://.*\nenable_model_api=false\n")
    write_config(config, tmp_path, [], Ports(), deployable=True)
    written = properties(tmp_path / "config.properties")
    assert (written["enable_model_api"], written["allowed_urls"]) == ("true", "none")


def test_digests_that_may_be_served(tmp_path: Path) -> None:
    config = tmp_path / "mine.properties"
    config.write_text(f"archive_digests={'a' * 64}, {'0' * 64}\nmax_response_size=10\n")
    assert allowed_digests(config) == ("a" * 64, "0" * 64)
    assert allowed_digests(DEFAULT_CONFIG) == ()
    assert write_config(config, tmp_path, [], Ports()) == 10
    assert "archive_digests" not in properties(tmp_path / "config.properties")
    assert checked_digests([" " + "A" * 64]) == ("a" * 64,)
    config.write_text("archive_digests=latest\nmax_response_size=much\n")
    with pytest.raises(ServerConfigError, match="digest: got 'latest'"):
        allowed_digests(config)
    with pytest.raises(ServerConfigError, match="max_response_size is 'much'"):
        write_config(config, tmp_path, [], Ports())


def test_keys_that_vouch_for_what_is_served(tmp_path: Path) -> None:
    config = tmp_path / "mine.properties"
    config.write_text("archive_public_keys=keys/a.pem, /etc/b.pem\n")
    assert public_key_files(config) == (tmp_path / "keys/a.pem", Path("/etc/b.pem"))
    assert public_key_files(DEFAULT_CONFIG) == ()
    write_config(config, tmp_path, [], Ports())
    assert "archive_public_keys" not in properties(tmp_path / "config.properties")


@pytest.mark.parametrize("value", ["", " ", "a.pem,", ",a.pem"])
def test_a_line_that_names_no_key_is_no_leave_to_serve_anything(value: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.properties"
    config.write_text(f"archive_public_keys={value}\n")
    with pytest.raises(ServerConfigError, match=r"archive_public_keys is '.*'; expected files"):
        public_key_files(config)


@pytest.mark.parametrize("line", ["archive_digests: 12", "archive_digests 12", "vmargs=-a \\"])
def test_what_is_not_understood_is_not_left_out(line: str, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(f"# a comment\n\n  ! another\n{line}\n")
    with pytest.raises(ServerConfigError, match="expected NAME=VALUE on one line"):
        allowed_digests(config)


def test_zero_stands_for_a_free_port() -> None:
    chosen = vars(choose_ports(DEFAULT_CONFIG, Ports()))
    assert len(set(chosen.values()) - {0}) == 5


@pytest.mark.parametrize(
    "line",
    ["metrics_address=https://127.0.0.1:8082", "metrics_address=8082", "grpc_inference_port=x"],
)
def test_other_addresses_are_refused(line: str, tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(DEFAULT_CONFIG.read_text() + line + "\n")
    with pytest.raises(ServerConfigError, match=line.split("=")[0]):
        choose_ports(config, None)


def test_private_files_are_private_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
