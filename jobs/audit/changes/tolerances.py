"""What two runs of one archive over the same pictures may differ by: rounding, no change.

The promise is 0.05 px, 1e-4 of a score and 1e-3 of a map's maximum between machines and batch
sizes; a stored map is rounded to float16 besides.
"""

from __future__ import annotations

# A little above what is promised: the numbers were rounded to float32 when they were written.
BOX = 0.051  # pixels, each edge
SCORE = 1.01e-4
MAP = 4e-3  # of the maximum: both maps' rounding, both maps' storage
# What such maps' figures can differ by.
ENERGY = 5e-3
CORRELATION = 1e-2


def beyond(difference: float, tolerance: float) -> float:
    """The difference, or 0 where it is within the tolerance."""
    return difference if abs(difference) > tolerance else 0.0
