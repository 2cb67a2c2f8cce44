"""What the report shows."""

from __future__ import annotations

from dataclasses import dataclass

MOST_PICTURES = 500


@dataclass(frozen=True)
class ReportPageOptions:
    """earlier: the outputs of earlier runs, for the plots over time.
    pictures: False for a report that holds no pixel of any picture: boxes and maps on a blank frame
        of its size.
    gallery: at most so many pictures are in the gallery, the worst first; at least 1.
    """

    earlier: tuple[str, ...] = ()
    pictures: bool = True
    gallery: int = MOST_PICTURES
