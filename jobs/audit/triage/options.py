"""What `jobs triage` is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TriageOptions:
    """The command line of `jobs triage`.

    archive, registry, public_keys: as for JobOptions; the archive that made the run.
    run: the output of a finished run of `jobs explain`. output: a folder or an s3:// URI.
    truth: where the pictures' annotations lie, None for none. truth_format: of which form.
    shifts: how many moved copies of a picture are looked at, 0 to 8; 0 for none.
    most: how many pictures are shown to the detector for each question, and how many findings of
        a kind are listed, at least 1.
    batch_size: as for JobOptions. seed: of what is drawn at random.
    """

    archive: str
    run: str
    output: str
    truth: str | None = None
    truth_format: str = "auto"
    shifts: int = 4
    most: int = 200
    batch_size: int | None = None
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    registry: str | None = None
    public_keys: tuple[str, ...] = ()
