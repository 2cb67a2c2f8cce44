"""Which part of a job a process does where a scheduler only counts: Kubernetes, AWS Batch."""

from __future__ import annotations

from collections.abc import Mapping

from archives.errors import UsageError

# An Indexed Job's pods, and an array job's children, count from 0.
KUBERNETES_INDEX = "JOB_COMPLETION_INDEX"
BATCH_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
BATCH_COUNT = "AWS_BATCH_JOB_ARRAY_SIZE"


def resolved(
    given: tuple[int | None, int] | None, environment: Mapping[str, str]
) -> tuple[int, int] | None:
    """(index, count) of the part that this process does, or None for the whole job.

    given: what --shard says, its index None where it was left to the environment. A scheduler's
    index without a count is no whole job: every pod would do all of it.
    Raises UsageError where index or count is not known, or they do not go together.
    """
    if given is not None and given[0] is not None:
        return given[0], given[1]
    variable, index = _index(environment)
    if given is not None:
        if index is None:
            raise UsageError(
                f"--shard /{given[1]} leaves the index to {KUBERNETES_INDEX} or {BATCH_INDEX}, and"
                f" neither is set: give --shard INDEX/{given[1]}"
            )
        count = given[1]
    elif index is None:
        return None
    else:
        found = _number(environment, BATCH_COUNT) if variable == BATCH_INDEX else None
        if found is None:
            raise UsageError(
                f"{variable} is {index}, so this is one of several parts, and how many is not"
                " known: give --shard /COUNT, the job's completions (or --shard 0/1, to do the"
                " whole job)"
            )
        count = found
    if index >= count:
        raise UsageError(
            f"{variable} is {index}; expected 0 to {count - 1}, as there are {count} parts: give"
            " --shard /COUNT as many as the scheduler starts"
        )
    return index, count


def _index(environment: Mapping[str, str]) -> tuple[str, int | None]:
    """The variable that gives an index, and the index."""
    found = {name: _number(environment, name) for name in (KUBERNETES_INDEX, BATCH_INDEX)}
    known = {name: index for name, index in found.items() if index is not None}
    if len(set(known.values())) > 1:
        both = " and ".join(f"{name} is {index}" for name, index in known.items())
        raise UsageError(f"{both}: give --shard INDEX/COUNT")
    # Batch's first: it knows the count, too.
    for name in (BATCH_INDEX, KUBERNETES_INDEX):
        if name in known:
            return name, known[name]
    return KUBERNETES_INDEX, None


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"{name}: expected a whole number from 0, got {text[:40]!r}")
    return int(text)
