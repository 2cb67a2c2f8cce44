"""What was asked of the audit's commands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AuditOptions:
    """The command line of `jobs audit`; its archive is the plan's.

    config: a YAML file, see jobs.audit.plan. date: the day the audit is of, YYYY-MM-DD; None for
    today, in UTC. keep: such as "30d", instead of the file's. dry_run: print the commands that it
    stands for, and do nothing.
    """

    config: str
    date: str | None = None
    keep: str | None = None
    dry_run: bool = False
