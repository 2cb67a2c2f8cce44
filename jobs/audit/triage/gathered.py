"""What `jobs triage` gathers while it reads a run and looks at pictures again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from jobs.audit.triage.errors import Missed
from jobs.audit.triage.kept import Sample
from jobs.audit.triage.looks import Looks
from jobs.audit.triage.noticed import Findings
from jobs.audit.triage.options import TriageOptions
from jobs.audit.triage.usual import Usual
from jobs.worker.pictures import Failure

# A detection of which a move leaves less than this is unstable.
LEAST_STABILITY = 0.5
# A picture's key, its printable name, and objects that were missed there.
Asked = tuple[str, str, tuple[Missed, ...]]


@dataclass
class Triage:
    """What is gathered on the way.

    sample: pictures drawn at random from those with detections; drawn: the keys of those that are
    looked at moved. missed: pictures, drawn likewise, with objects that nothing tells of. objects,
    missed_objects: how many. whys: by kind; of missed objects that a detection is about its flag.
    """

    options: TriageOptions
    findings: Findings
    looks: Looks
    sample: Sample[tuple[str, str]]
    missed: Sample[Asked]
    drawn: set[str] = field(default_factory=set)
    pictures: int = 0
    detections: int = 0
    annotated: int = 0
    objects: int = 0
    missed_objects: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    whys: Counter[str] = field(default_factory=Counter)
    stability: Usual = field(default_factory=Usual)
    stability_limit: float = LEAST_STABILITY
    asked: int = 0
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def of(cls, options: TriageOptions) -> Triage:
        most, seed = options.most, options.seed
        samples = Sample[tuple[str, str]](most, seed), Sample[Asked](most, seed)
        return cls(options, Findings(most), Looks(most), *samples)
