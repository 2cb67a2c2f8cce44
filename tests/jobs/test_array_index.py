"""Which part of a job a pod or a child of an array does."""

from __future__ import annotations

import pytest

from archives.errors import UsageError
from jobs.array_index import BATCH_COUNT, BATCH_INDEX, KUBERNETES_INDEX, resolved


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, None),
        (None, {KUBERNETES_INDEX: "", BATCH_COUNT: "8"}, None),
        ((3, 8), {}, (3, 8)),
        ((3, 8), {KUBERNETES_INDEX: "5"}, (3, 8)),
        ((0, 1), {BATCH_INDEX: "5", BATCH_COUNT: "6"}, (0, 1)),
        ((None, 8), {KUBERNETES_INDEX: "5"}, (5, 8)),
        ((None, 8), {BATCH_INDEX: "7"}, (7, 8)),
        ((None, 8), {BATCH_INDEX: "5", BATCH_COUNT: "6"}, (5, 8)),
        (None, {BATCH_INDEX: "0", BATCH_COUNT: "6"}, (0, 6)),
        (None, {BATCH_INDEX: "2", BATCH_COUNT: "6", KUBERNETES_INDEX: "2"}, (2, 6)),
    ],
)
def test_the_part(
    given: tuple[int | None, int] | None,
    environment: dict[str, str],
    expected: tuple[int, int] | None,
) -> None:
    assert resolved(given, environment) == expected


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (None, {KUBERNETES_INDEX: "3"}, "how many is not known: give --shard /COUNT"),
        (None, {KUBERNETES_INDEX: "3", BATCH_COUNT: "8"}, "JOB_COMPLETION_INDEX is 3, so this is"),
        (None, {BATCH_INDEX: "3"}, "AWS_BATCH_JOB_ARRAY_INDEX is 3, so this is one of several"),
        ((None, 8), {}, "neither is set: give --shard INDEX/8"),
        ((None, 8), {KUBERNETES_INDEX: "8"}, "JOB_COMPLETION_INDEX is 8; expected 0 to 7"),
        (None, {BATCH_INDEX: "6", BATCH_COUNT: "6"}, "ARRAY_INDEX is 6; expected 0 to 5"),
        ((None, 8), {KUBERNETES_INDEX: "x"}, "expected a whole number from 0, got 'x'"),
        (None, {BATCH_INDEX: "1", BATCH_COUNT: "-2"}, "ARRAY_SIZE: expected a whole number"),
        ((None, 8), {KUBERNETES_INDEX: "1", BATCH_INDEX: "2"}, "give --shard INDEX/COUNT"),
    ],
)
def test_a_part_that_is_not_known(
    given: tuple[int | None, int] | None, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        resolved(given, environment)


def test_the_command_line_looks_into_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.__main__ import parse

    needed = ["explain", "--archive", "a.mar", "--input", "in", "--output", "out"]
    monkeypatch.delenv(BATCH_INDEX, raising=False)
    monkeypatch.setenv(KUBERNETES_INDEX, "5")
    assert parse([*needed, "--shard", "/8"]).shard == (5, 8)
    with pytest.raises(SystemExit):
        parse(needed)
    assert "error: JOB_COMPLETION_INDEX is 5" in capsys.readouterr().err
