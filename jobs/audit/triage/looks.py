"""What a run alone says of its detections: evidence off the box, scattered evidence."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from handlers.metrics import localization
from handlers.schema import Explanation
from jobs.audit.changes.maps import cells_inside
from jobs.audit.findings import Finding
from jobs.audit.triage.kept import Worst
from jobs.audit.triage.noticed import LOW_ENERGY, OUTSIDE, SCATTERED, Findings, Noticed
from jobs.audit.triage.usual import BINS, FEW, Usual, place_of

# Nothing is low or scattered, however unusual, that does not pass these levels, too.
LEAST_ENERGY, MOST_ENTROPY = 0.3, 0.9
# A box that is this sure with so little inside it.
SURE, OUTSIDE_ENERGY = 0.9, 0.1


@dataclass(frozen=True)
class Look:
    """One detection. key: its picture's in the store. name: the printable one."""

    key: str
    name: str
    index: int
    category: str
    score: float
    energy: float
    entropy: float


def entropy(explanation: Explanation) -> float:
    """How scattered a map is: Shannon's entropy of its shares by cell over the logarithm of their
    number, cells off the picture left out: 0, all in one cell, to 1, the same everywhere. 0 for a
    map with nothing in it."""
    rows, columns = cells_inside(explanation.geometry, tuple(explanation.heatmap.shape))
    return float(localization.entropy(explanation.heatmap[rows][:, columns]))


class Looks:
    """Takes every detection of a run and says, at the end, which are worth a look.

    most: how many of a category are kept for each question.
    """

    def __init__(self, most: int) -> None:
        self.energy: dict[str, Usual] = defaultdict(Usual)
        self.entropy: dict[str, Usual] = defaultdict(Usual)
        self.all_energy, self.all_entropy = Usual(), Usual()
        self._low: dict[str, Worst[Look]] = defaultdict(lambda: Worst(most))
        self._scattered: dict[str, Worst[Look]] = defaultdict(lambda: Worst(most))

    def add(self, look: Look, findings: Findings) -> None:
        """One detection; tells at once what depends on no other."""
        for usual, value in (
            (self.energy[look.category], look.energy),
            (self.all_energy, look.energy),
            (self.entropy[look.category], look.entropy),
            (self.all_entropy, look.entropy),
        ):
            usual.add(value)
        self._low[look.category].add(-look.energy, look)
        self._scattered[look.category].add(look.entropy, look)
        if look.score >= SURE and look.energy < OUTSIDE_ENERGY:
            says = f"{1 - look.energy:.2f} of its map lies outside its box, sure as it is"
            findings.add(_noticed(look, OUTSIDE, 1 - look.energy, says))

    def low(self, category: str) -> float:
        """Energy in the box below this is low for a category."""
        return _of(self.energy[category], self.all_energy).low(LEAST_ENERGY)

    def high(self, category: str) -> float:
        """Entropy from this on is high for a category."""
        return _of(self.entropy[category], self.all_entropy).high(MOST_ENTROPY)

    def finish(self, findings: Findings) -> None:
        """Tells what is unusual for its category."""
        for category, usual in self.energy.items():
            limit, middle = self.low(category), _of(usual, self.all_energy).median()
            findings.count(LOW_ENERGY, category, usual.below(limit))
            for look in self._low[category].items():
                if place_of(look.energy) < round(limit * BINS):
                    says = f"{look.energy:.2f} of its map lies in its box, usual is {middle:.2f}"
                    findings.keep(_noticed(look, LOW_ENERGY, 1 - look.energy, says))
        for category, usual in self.entropy.items():
            limit, middle = self.high(category), _of(usual, self.all_entropy).median()
            findings.count(SCATTERED, category, usual.from_on(limit))
            for look in self._scattered[category].items():
                if place_of(look.entropy) >= round(limit * BINS):
                    says = f"its map is scattered: entropy {look.entropy:.2f}, usual {middle:.2f}"
                    beyond = (look.entropy - middle) / (1 - middle)
                    findings.keep(_noticed(look, SCATTERED, beyond, says))


def _of(own: Usual, everything: Usual) -> Usual:
    """What a category is held against: itself, if it is seen often enough."""
    return own if own.number >= FEW else everything


def _noticed(look: Look, flag: str, contradicted: float, says: str) -> Noticed:
    """contradicted: how much of the box's evidence speaks against it, 0 ... 1."""
    severity = min(max(look.score * contradicted, 0.0), 1.0)
    text = f"{look.category} {look.score:.2f}: {says}"
    return Noticed(look.key, look.category, Finding(look.name, look.index, flag, severity, text))
