"""The manifests of docs/cluster: by their engines' own schemas, and by what they mean."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import kubernetes_validate
import pytest
import yaml
from botocore.validate import ParamValidator

from jobs.__main__ import parse
from jobs.commands.explain import EXIT_CODES
from jobs.options import JobOptions, ReportOptions

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "docs/cluster"
WRAPPER = ROOT / "docs/containers/whybox-job"
# FailIndex and podFailurePolicy are stable from 1.33 on; the newest is what the package brings.
VERSIONS = ("1.33", kubernetes_validate.latest_version().removesuffix(".0"))
# What a scheduler does after each exit code of `python -m jobs`.
AFTER = {
    **dict.fromkeys((0, 3), "succeed"),
    **dict.fromkeys((1, 2, 5, 6), "fail"),
    **dict.fromkeys((75, 130, 137, 143), "retry"),
}
NIGHT = "s3://example-explained/2026-01-31"


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each document of Kubernetes' files, with its name."""
    for file in ("cronjob.yaml", "indexed-job.yaml"):
        for document in yaml.safe_load_all((CLUSTER / file).read_text()):
            yield document["metadata"]["name"], document


MANIFESTS = dict(manifests())
JOBS = {
    name: each["spec"]["jobTemplate"]["spec"] if each["kind"] == "CronJob" else each["spec"]
    for name, each in MANIFESTS.items()
}
BATCH = {
    path.stem.removeprefix("batch-"): yaml.safe_load(path.read_text())
    for path in sorted(CLUSTER.glob("batch-*.yaml"))
}
DEFINITIONS = [name for name in BATCH if name.endswith("-definition")]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_schemas(name: str, version: str) -> None:
    assert kubernetes_validate.validate(MANIFESTS[name], version, strict=True) == version


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"completionsMode": "Indexed"}, "'completionsMode' was unexpected"),
        ({"completions": "16"}, "'16' is not of type 'integer'"),
    ],
)
def test_kubernetes_schemas_refuse(change: dict[str, Any], problem: str) -> None:
    wrong = MANIFESTS["whybox-explain"] | {"spec": JOBS["whybox-explain"] | change}
    with pytest.raises(kubernetes_validate.ValidationError, match=problem):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def problems(name: str, values: Mapping[str, Any]) -> str:
    """What AWS's own description of its interface says of a request."""
    operation = "RegisterJobDefinition" if name.endswith("-definition") else "SubmitJob"
    model = botocore.session.get_session().get_service_model("batch")
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    return str(ParamValidator().validate(dict(values), shape).generate_report())


@pytest.mark.parametrize("name", BATCH)
def test_batch_model(name: str) -> None:
    assert problems(name, BATCH[name]) == ""
    assert "Unknown parameter" in problems(name, BATCH[name] | {"retries": 3})


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_what_kubernetes_asks_beyond_its_schema(job: dict[str, Any]) -> None:
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    indexed = job.get("completionMode") == "Indexed"
    assert ("backoffLimitPerIndex" in job) == indexed
    for rule in job["podFailurePolicy"]["rules"]:
        assert rule["action"] != "FailIndex" or indexed
        if "onExitCodes" in rule:
            codes = rule["onExitCodes"]
            assert codes["containerName"] == pod["containers"][0]["name"]
            assert codes["values"] == sorted(set(codes["values"]))
            assert 0 not in codes["values"]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_pods_are_locked_down(job: dict[str, Any]) -> None:
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # A worker has 10 s to end its shard, and the process around it must outlive that.
    assert pod["terminationGracePeriodSeconds"] >= 30
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each["emptyDir"] for each in pod["volumes"]}
    assert volumes[mounts["/dev/shm"]]["medium"] == "Memory"
    assert (
        volumes[mounts["/tmp"]]["sizeLimit"]
        == (container["resources"]["requests"]["ephemeral-storage"])
    )
    gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
    assert gpus == (container["name"] == "explain")
    assert bool(pod.get("tolerations")) == bool(gpus)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_batch_containers_are_locked_down(name: str) -> None:
    container = BATCH[name]["containerProperties"]
    assert container["user"] == "10001:10001"
    assert container["readonlyRootFilesystem"] is True
    assert container["privileged"] is False
    assert container["mountPoints"][0]["containerPath"] == "/tmp"
    kinds = [each["type"] for each in container["resourceRequirements"]]
    assert ("GPU" in kinds) == name.startswith("explain")


def test_no_credentials() -> None:
    for path in CLUSTER.iterdir():
        text = path.read_text()
        assert not re.search(r"AKIA|secret|password|ACCESS_KEY", text, re.IGNORECASE), path.name
        assert not re.search(r":latest\b", text), path.name


def after_pod(job: dict[str, Any], code: int, disrupted: bool = False) -> str:
    """What Kubernetes does: the first rule that fits; where none does, the failure counts."""
    if code == 0:
        return "succeed"
    for rule in job["podFailurePolicy"]["rules"]:
        found = rule.get("onExitCodes")
        by_code = found and (code in found["values"]) == (found["operator"] == "In")
        by_state = disrupted and any(
            each["type"] == "DisruptionTarget" for each in rule.get("onPodConditions", ())
        )
        if by_code or by_state:
            return {"FailJob": "fail", "FailIndex": "fail"}.get(rule["action"], "retry")
    return "retry"


def after_attempt(definition: dict[str, Any], code: int | None, status: str = "") -> str:
    """What AWS Batch does: the first rule that fits; where none does, it tries again."""
    if code == 0:
        return "succeed"
    for rule in definition["retryStrategy"]["evaluateOnExit"]:
        given = {"onExitCode": "" if code is None else str(code), "onStatusReason": status}
        patterns = {name: rule[name] for name in given if name in rule}
        if all(given[name] and fits(given[name], each) for name, each in patterns.items()):
            return {"EXIT": "fail", "RETRY": "retry"}[rule["action"]]
    return "retry"


def fits(text: str, pattern: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def test_every_exit_code_is_decided() -> None:
    told = {int(code) for code in re.findall(r"\b\d+\b", EXIT_CODES)}
    assert {0, 1, 2, 3, 5, 6, 75, 130, 143} <= told <= set(AFTER)


@pytest.mark.parametrize("code", AFTER)
def test_exit_codes(code: int, tmp_path: Path) -> None:
    seen = run_wrapper(tmp_path, f"exit {code}").returncode
    assert seen == (0 if code == 3 else code)
    for name, job in JOBS.items():
        assert after_pod(job, seen) == AFTER[code], name
    for name in DEFINITIONS:
        assert after_attempt(BATCH[name], seen) == AFTER[code], name


def test_only_what_concerns_all_parts_fails_the_whole_job() -> None:
    rules = JOBS["whybox-explain"]["podFailurePolicy"]["rules"]
    actions = {each["action"]: each.get("onExitCodes", {}).get("values") for each in rules}
    assert actions["FailJob"] == [2, 5]
    assert actions["FailIndex"] == [1, 6]


@pytest.mark.parametrize("code", [1, 137, 143])
def test_a_lost_node_is_nobodys_fault(code: int) -> None:
    for job in JOBS.values():
        first = job["podFailurePolicy"]["rules"][0]
        assert first["action"] == "Ignore"  # before any exit code, so that it does not count
        assert after_pod(job, code, disrupted=True) == "retry"
    for name in DEFINITIONS:
        assert after_attempt(BATCH[name], code, "Host EC2 (instance i-0) terminated.") == "retry"
        assert after_attempt(BATCH[name], None) == "retry"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_batch_rules_are_such_as_batch_takes(name: str) -> None:
    strategy = BATCH[name]["retryStrategy"]
    rules = strategy["evaluateOnExit"]
    assert 1 < strategy["attempts"] <= 10
    assert len(rules) <= 5
    for rule in rules:
        assert re.fullmatch(r"[0-9]*\*?", rule.get("onExitCode", ""))


def path_with(folder: Path, script: str) -> str:
    """A PATH whose `python` is this script, and where `whybox-job` is as in the image."""
    (folder / "bin").mkdir()
    (folder / "bin/python").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin/python").chmod(0o755)
    shutil.copy(WRAPPER, folder / "bin/whybox-job")
    return f"{folder / 'bin'}:{os.environ['PATH']}"


def run_wrapper(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path_with(folder, script)}
    return subprocess.run(
        ["whybox-job", "explain"], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("ended", "seen"), [(143, 143), (3, 0), (0, 0)])
def test_a_signal_reaches_the_job_and_its_end_is_waited_for(
    ended: int, seen: int, tmp_path: Path
) -> None:
    # It is told to end, takes its time, and says how it ended.
    script = (
        f"trap 'sleep 0.3; touch {tmp_path}/over; exit {ended}' TERM; touch {tmp_path}/ready;"
        " while true; do sleep 0.05; done"
    )
    environment = {**os.environ, "PATH": path_with(tmp_path, script)}
    with subprocess.Popen(["whybox-job", "explain"], env=environment) as wrapper:
        deadline = time.monotonic() + 30
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        wrapper.send_signal(signal.SIGTERM)
        assert wrapper.wait(timeout=30) == seen
    assert (tmp_path / "over").exists()


def options_of(
    command: list[str], environment: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The options that a container's command comes to, run as the engine would but for Python."""
    say = f"import json, sys; json.dump(sys.argv[1:], open({str(folder / 'seen')!r}, 'w'))"
    path = path_with(folder, f'exec {sys.executable} -c "{say}" "$@"')
    subprocess.run(command, env={**os.environ, "PATH": path}, check=True)
    first, second, *arguments = json.loads((folder / "seen").read_text())
    assert [first, second] == ["-m", "jobs"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return parse(arguments)


def container_command(name: str) -> list[str]:
    (container,) = JOBS[name]["template"]["spec"]["containers"]
    return [*container["command"], *container["args"]]


def batch_command(kind: str) -> list[str]:
    """With the parameters of the job, or else of its definition, put in."""
    definition, job = BATCH[f"{kind}-definition"], BATCH[f"{kind}-job"]
    assert job["jobDefinition"] == definition["jobDefinitionName"]
    assert set(job["parameters"]) == set(definition["parameters"])
    given = definition["parameters"] | job["parameters"]
    words: list[str] = definition["containerProperties"]["command"]
    return [given[word[5:]] if word.startswith("Ref::") else word for word in words]


def test_the_cron_jobs_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_of(container_command("whybox-nightly"), {}, tmp_path, monkeypatch)
    assert isinstance(options, JobOptions)
    assert re.fullmatch(r"s3://example-explained/\d{4}-\d\d-\d\d", options.output)
    assert options.device == "cuda"
    assert options.shard is None


def test_a_nightly_run_ends_on_the_date_that_it_began() -> None:
    cron = MANIFESTS["whybox-nightly"]["spec"]
    minute, hour, *every = cron["schedule"].split()
    assert every == ["*", "*", "*"]
    assert cron["timeZone"] == "Etc/UTC"
    assert cron["concurrencyPolicy"] == "Forbid"
    begins = int(hour) * 3600 + int(minute) * 60 + cron["startingDeadlineSeconds"]
    assert begins + JOBS["whybox-nightly"]["activeDeadlineSeconds"] < 24 * 3600


@pytest.mark.parametrize("index", [0, 15])
def test_the_indexed_jobs_command(
    index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"JOB_COMPLETION_INDEX": str(index)}
    command = container_command("whybox-explain")
    options = options_of(command, environment, tmp_path, monkeypatch)
    assert options.shard == (index, JOBS["whybox-explain"]["completions"])
    assert options.output == NIGHT
    assert options.shard_size == 4096
    assert options.manifest.endswith("/manifest.json")


@pytest.mark.parametrize("index", [0, 15])
def test_the_arrays_command(index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = BATCH["explain-job"]["arrayProperties"]["size"]
    environment = {
        "AWS_BATCH_JOB_ARRAY_INDEX": str(index),
        "AWS_BATCH_JOB_ARRAY_SIZE": str(size),
    }
    options = options_of(batch_command("explain"), environment, tmp_path, monkeypatch)
    assert options.shard == (index, size)
    assert options.output == NIGHT
    assert options.shard_size == 4096


def test_reports_are_of_the_same_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert JOBS["whybox-report"]["suspend"] is True
    assert BATCH["report-job"]["dependsOn"][0].keys() == {"jobId"}  # so of the array as a whole
    for kind, command in (
        ("kubernetes", container_command("whybox-report")),
        ("batch", batch_command("report")),
    ):
        (tmp_path / kind).mkdir()
        options = options_of(command, {}, tmp_path / kind, monkeypatch)
        assert isinstance(options, ReportOptions)
        assert options.output == NIGHT


def test_all_run_one_image() -> None:
    pods = {JOBS[name]["template"]["spec"]["containers"][0]["image"] for name in JOBS}
    batch = {BATCH[name]["containerProperties"]["image"] for name in DEFINITIONS}
    assert pods == batch == {"registry.example.org/whybox-jobs:1.0"}
