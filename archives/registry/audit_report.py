"""audit.json: an audit's figures of one archive and what they have to reach; a gate to an alias."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
)
from pydantic import model_validator as validated
from pydantic.json_schema import SkipJsonSchema

from archives.errors import MissedError, MissingObjectError, printable, shortened
from archives.names import Reference
from archives.signatures.envelope import strict_json
from archives.stores.opening import open_root, split_uri

SCHEMA_FILE = "audit-report.json"
MOST_PROBLEMS = 3
DATE = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]"


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):  # equals 1
        raise ValueError("expected a number")
    return value


def _date(value: Any) -> Any:
    # A number would be seconds since 1970.
    if not isinstance(value, datetime) and not (isinstance(value, str) and re.match(DATE, value)):
        raise ValueError("expected a date and time as 2026-03-02T04:00:00Z")
    return value


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("expected a number, or leave it out")
    return value


# The schema knows no null: what is not given is left out.
Limit = Annotated[
    FiniteFloat | SkipJsonSchema[None], BeforeValidator(_given), Field(default_factory=lambda: None)
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AuditedArchive(_Part):
    """Whom the figures are of; the digest counts, name and version are for people."""

    name: str
    version: str
    digest: str = Field(pattern="^[0-9a-f]{64}$", description="As `archives verify` prints it.")


class Threshold(_Part):
    """What a figure has to reach: one of `at_least` and `at_most`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["at_least"]}, {"required": ["at_most"]}]}
    )

    figure: str = Field(min_length=1, description="A name among `figures`.")
    at_least: Limit
    at_most: Limit

    @validated(mode="after")
    def _one_of_two(self) -> Threshold:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"{_shown(self.figure)}: give one of at_least and at_most")
        return self

    def missed(self, figure: float) -> str:
        """How far the figure misses it, as text; "" if it does not."""
        if self.at_least is not None and not figure >= self.at_least:
            return f"{_shown(self.figure)} is {figure:.12g}, less than {self.at_least:.12g}"
        if self.at_most is not None and not figure <= self.at_most:
            return f"{_shown(self.figure)} is {figure:.12g}, more than {self.at_most:.12g}"
        return ""


class AuditReport(_Part):
    """What an audit found about one archive, and whether that is good enough."""

    schema_version: Annotated[Literal[1], BeforeValidator(_no_truth)] = 1
    archive: AuditedArchive
    created: Annotated[AwareDatetime, BeforeValidator(_date)] = Field(
        strict=False, description="With its time zone.", json_schema_extra={"pattern": DATE}
    )
    figures: dict[str, FiniteFloat] = Field(description="What was measured, by name.")
    thresholds: tuple[Threshold, ...] = Field(min_length=1, strict=False)
    passed: bool = Field(description="Whether every threshold is met.")
    notes: str = ""
    links: dict[str, str] = Field(
        default_factory=dict, description="Where to read on, by what is there."
    )

    def misses(self) -> list[str]:
        """Every threshold that is missed, with its figure, as text."""
        return [
            missed
            if each.figure in self.figures
            else f"{_shown(each.figure)} is not among the figures"
            for each in self.thresholds
            if each.figure not in self.figures or (missed := each.missed(self.figures[each.figure]))
        ]


def read_report(place: str) -> bytes:
    """The report's text, from a file or an s3:// URI. Raises MissedError if there is none."""
    try:
        root, key = split_uri(place)
        return open_root(root).read(key)
    except MissingObjectError as error:
        raise MissedError(f"there is no audit report at {shortened(place)}") from error


def evaluate(data: bytes, reference: Reference, digest: str) -> AuditReport:
    """The report, if it is of the archive with this digest and all its thresholds are met by its
    figures. Raises MissedError, naming the figure, if not."""
    try:
        strict_json(data)  # as pydantic is not: of a key that is there twice it takes the last
        report = AuditReport.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        text = "; ".join(
            f"{_shown('.'.join(map(str, each['loc']))) or 'it'}: {each['msg']}"
            for each in found[:MOST_PROBLEMS]
        )
        raise MissedError(f"the audit report is none, or none that counts: {text}") from error
    except ValueError as error:
        raise MissedError(f"the audit report is none, or none that counts: {error}") from error
    if report.archive.digest != digest:
        raise MissedError(
            f"the audit report is of {_shown(report.archive.name)}"
            f" {_shown(report.archive.version)}, digest"
            f" {report.archive.digest}; {reference} has digest {digest}: audit that one"
        )
    misses = report.misses()
    if misses:
        says = " (and yet it says it passed)" if report.passed else ""
        raise MissedError(f"{reference} does not pass its audit: {'; '.join(misses)}{says}")
    if not report.passed:
        raise MissedError(
            f"the audit report of {reference} says that it did not pass, though"
            f" {', '.join(_shown(each.figure) for each in report.thresholds)} reach their"
            " thresholds: audit it again"
        )
    return report


def _shown(name: str) -> str:
    """A name that the report gives, which others wrote."""
    return shortened(printable(name))


def schema() -> dict[str, Any]:
    """The JSON Schema of audit.json."""
    return AuditReport.model_json_schema()


def write_schema(folder: Path) -> None:
    """Writes it into the folder, as SCHEMA_FILE."""
    text = json.dumps(schema(), indent=1) + "\n"
    (folder / SCHEMA_FILE).write_text(text, encoding="utf-8")
