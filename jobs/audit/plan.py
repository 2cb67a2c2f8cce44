"""The plan of an audit: one YAML file, read strictly, as the commands that it stands for."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from archives.errors import UsageError, printable, shortened
from jobs.commands.argument_types import split_threshold
from jobs.commands.registry import COMMANDS
from jobs.settings import read_yaml

DATE = "{date}"
DAYS = re.compile(r"([1-9][0-9]{0,3})d")
ANY_DAY = r"(\{date\}|[0-9]{4}-[0-9]{2}-[0-9]{2})"
MOST_PROBLEMS = 5
# What a step's own settings may not be: the plan gives it once, for all steps,
SHARED = (
    *("archive", "registry", "public_key", "input", "output", "device", "precision"),
    *("truth", "truth_format"),
)
# or the audit itself: with these a command does something else, or another run.
ITS_OWN = ("run", "config", "preview_model", "shard", "dry_run", "manifest")


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _settings(value: Any) -> Any:
    """Of a step: true for its defaults, false for none of it, or what it is given."""
    if value is True:
        return {}
    return None if value is False else value


def _days(value: Any) -> Any:
    if value is None:
        return None
    found = DAYS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a number of days, such as 30d")
    return int(found[1])


Several = Annotated[tuple[str, ...], BeforeValidator(_several), Field(strict=False)]
Settings = Annotated[dict[str, Any] | None, BeforeValidator(_settings)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Truth(_Strict):
    """Where ground truth lies, and in what form, as for `jobs evaluate`."""

    place: str
    format: str = "auto"


class Hook(_Strict):
    """Who is told when an audit fails: one of them.

    url: gets audit.json's text by POST; https, or http on loopback.
    token_variable: the environment's variable with what is sent as a bearer token.
    command: a program and its arguments, which gets that text on its standard input.
    """

    url: str | None = None
    token_variable: str | None = None
    command: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _one(self) -> Hook:
        if (self.url is None) == (not self.command):
            raise ValueError("expected a url or a command, and not both")
        if self.token_variable is not None and self.url is None:
            raise ValueError("token_variable goes with a url")
        return self


class Plan(_Strict):
    """One audit. README and docs/audit.md say what each field does.

    explain, evaluate, ...: the options of the command of that name, by their names with
    underscores. input, output: with "{date}" where each day has its own. keep: days.
    """

    archive: str
    input: Several
    output: str
    registry: str | None = None
    public_key: Several = ()
    device: str | None = None
    precision: str | None = None
    pictures: bool = True
    truth: Truth | None = None
    explain: Annotated[dict[str, Any], BeforeValidator(_settings)] = Field(default_factory=dict)
    evaluate: Settings = Field(default_factory=dict)
    sanity: Settings = None
    shortcuts: Settings = Field(default_factory=dict)
    triage: Settings = Field(default_factory=dict)
    compare: Settings = Field(default_factory=dict)
    report: Annotated[dict[str, Any], BeforeValidator(_settings)] = Field(default_factory=dict)
    thresholds: Several = ()
    hook: Hook | None = None
    keep: Annotated[int | None, BeforeValidator(_days)] = None

    @model_validator(mode="after")
    def _sensible(self) -> Plan:
        if self.keep is not None and DATE not in self.output.rstrip("/").rpartition("/")[2]:
            raise ValueError(
                f"keep: output has to end with a folder of each day, such as .../{DATE}"
            )
        for place in self._below_output() if self.keep is not None else ():
            raise ValueError(
                f"keep: {shortened(place)} lies in a day's output, and would be removed with it"
            )
        for step in STEPS:
            settings = getattr(self, step) or {}
            known = settings_of(step) if settings else []
            for given in settings:
                name = given.replace("-", "_")
                if name in SHARED:
                    raise ValueError(f"{step}: {given} is given once, at the top")
                if name == "threshold":
                    raise ValueError(f"{step}: give it at the top, among the audit's thresholds")
                if name not in known:
                    raise ValueError(
                        f"{step}: there is no setting {shortened(printable(given))} here; expected"
                        f" one of {', '.join(known)}"
                    )
                if not self.pictures and name in SHOWING.get(step, ()):
                    raise ValueError(f"{step}: {name} goes with pictures, and these are private")
        for text in self.thresholds:
            try:
                split_threshold(text)
            except ValueError as error:
                raise ValueError(
                    f"thresholds: expected FIGURE>=NUMBER or FIGURE<=NUMBER, got {text!r}"
                ) from error
        return self

    def _below_output(self) -> list[str]:
        """What the audit reads that lies in a day's output, be it any day's."""
        day = re.escape(_full(self.output)).replace(re.escape(DATE), ANY_DAY)
        read = [*self.input, *self.public_key, self.archive, self.registry]
        read.append(self.truth.place if self.truth else None)
        return [each for each in read if each and re.match(f"{day}(/|$)", _full(each))]


def _full(place: str) -> str:
    """A folder's whole path; a URI as it is, without a slash at its end."""
    return place.rstrip("/") if "://" in place else os.path.realpath(place)


# In the order in which they are done.
STEPS = ("explain", "evaluate", "sanity", "shortcuts", "triage", "compare", "report")
# Those that take the archive, and those of them that also read pictures.
WITH_ARCHIVE = ("explain", "evaluate", "sanity", "shortcuts", "triage")
WITH_INPUT = ("explain", "evaluate", "sanity", "shortcuts")
WITH_TRUTH = ("evaluate", "triage")
WITHOUT_PICTURES: Mapping[str, dict[str, Any]] = {
    "explain": {"pictures": False},
    "sanity": {"pictures": False},
    "shortcuts": {"examples": 0},
    "report": {"no_report_pictures": True},
}
# What would bring pixels back.
SHOWING = {"explain": ("pictures", "overlays"), "shortcuts": ("examples",)}
# Flags that take one value and may be given several times.
REPEATED = ("public_key", "threshold")


def settings_of(step: str) -> list[str]:
    """The names that a step's own settings may have: its command's options in full, but for those
    that the audit gives."""
    parser = argparse.ArgumentParser(add_help=False)
    COMMANDS[step].add_arguments(parser)
    # argparse has no public name for a parser's own arguments; a --no-... comes second.
    flags = [action.option_strings[0] for action in parser._actions if action.option_strings]
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags]
    given = (*SHARED, *ITS_OWN, "threshold")
    return [*(["before"] if step == "compare" else []), *(n for n in names if n not in given)]


@dataclass(frozen=True)
class Run:
    """An audit of one day.

    output: its own. before: the run to compare with. earlier: runs for the plots over time, the
    oldest first.
    """

    plan: Plan
    output: str
    before: str | None = None
    earlier: tuple[str, ...] = ()


def read_plan(path: str, keep: str | None = None) -> Plan:
    """keep: instead of the file's. Raises UsageError, naming each place and what was expected
    there, for a file that is none."""
    try:
        return Plan.model_validate(read_yaml(path) | ({} if keep is None else {"keep": keep}))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}"
            for each in found[:MOST_PROBLEMS]
        ]
        text = "; ".join(each.removeprefix(": ") for each in problems)
        raise UsageError(f"{shortened(path)}: {text}") from error


def dated(output: str, day: date) -> str:
    """The output of a day."""
    return output.replace(DATE, day.isoformat())


def command_of(step: str, run: Run) -> list[str] | None:
    """The command line of a step, or None where it is not to be done."""
    plan = run.plan
    settings = getattr(plan, step)
    if settings is None:
        return None
    settings = dict(settings)
    line = [step]
    if step == "compare":
        before = settings.pop("before", None) or run.before
        if before is None:
            return None
        return [*line, str(before), run.output, *_flags(step, {"output": run.output, **settings})]
    if step == "report":
        shared: dict[str, Any] = {"earlier": list(run.earlier)} if run.earlier else {}
        private = {} if plan.pictures else WITHOUT_PICTURES[step]
        return [*line, run.output, *_flags(step, {**shared, **settings, **private})]
    shared = {
        "archive": plan.archive,
        "registry": plan.registry,
        "public_key": list(plan.public_key),
        "output": run.output,
        "device": plan.device,
        "precision": plan.precision,
    }
    shared |= {"input": list(plan.input)} if step in WITH_INPUT else {"run": run.output}
    if step == "evaluate":
        shared["controls"] = True  # figures mean something only beside them
    if step in WITH_TRUTH and plan.truth is not None:
        shared |= {"truth": plan.truth.place, "truth_format": plan.truth.format}
    if not plan.pictures:
        shared |= WITHOUT_PICTURES.get(step, {})
    return [*line, *_flags(step, {**shared, **settings})]


def _flags(step: str, settings: Mapping[str, Any]) -> list[str]:
    """As a person would type them. What is None or an empty list is not given, nor is what is
    false where there is no flag that says so."""
    line: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if value is None or value == []:
            continue
        if isinstance(value, bool):
            if value or step == "explain" or name in ("pictures", "controls"):
                line.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list) and name in REPEATED:
            line += [part for each in value for part in (f"--{flag}", str(each))]
        elif isinstance(value, list):
            line += [f"--{flag}", *map(str, value)]
        else:
            line += [f"--{flag}", str(value)]
    return line


def check(run: Run) -> None:
    """Raises UsageError for a step whose command line is none, before anything is done; on the
    first day, too, for the comparison that will be on the second."""
    from jobs.__main__ import parse  # which knows the command that this is of

    run = replace(run, before=run.before or run.output)
    for step in STEPS:
        line = command_of(step, run)
        if line is None:
            continue
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                parse(line)
        except SystemExit as error:
            message = said.getvalue().rpartition("error: ")[2].strip()
            raise UsageError(f"{step}: {message}") from error
