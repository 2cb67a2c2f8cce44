"""OUTPUT/report/: what a person looks at in the morning, from disk or from the store.

Written by `python -m jobs report`, of a run that is done and of what audits left beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from archives.errors import MissingObjectError
from archives.stores.store import CONNECTIONS, Store
from jobs.audit.findings import worst_first
from jobs.names import REPORT
from jobs.notes import say
from jobs.page.audits import Flags, read_limits, read_parts
from jobs.page.gallery import write_gallery
from jobs.page.history import earlier, moment
from jobs.page.images import copied_images
from jobs.page.options import ReportPageOptions
from jobs.page.overview import plots_of, plots_over_time
from jobs.page.saved_figures import NAME as FIGURES
from jobs.page.saved_figures import SavedFigures
from jobs.page.selection import Chosen, chosen
from jobs.page.text import NOTHING, counted, date, shown, visible
from jobs.page.verdict import verdict, worst_flags
from jobs.saved_run import SavedRun

INDEX = "index.html"
MOST_FAILURES, MOST_FINDINGS, MOST_REASONS = 100, 20, 10
KEPT_PLOTS = 8  # over time; more are folded away


def write_report(run: SavedRun, output: Store, options: ReportPageOptions) -> None:
    """Writes the report of a run that is done, below report/; index.html last. What an earlier
    report left there goes.

    output: the run's own, which also holds what audits found. Earlier runs that cannot be read are
    left out, which the page and a line on stderr say. Raises ConflictError for a part of an audit
    that is none, and what a store raises.
    """
    before = earlier(options.earlier)
    for place, why in before.left_out:
        say(f"{place} is left out of the figures over time: {why}")
    parts = read_parts(output)
    flags = Flags.of(parts)
    found = chosen(run, flags, options.gallery)
    page = _Page(output)
    source = run.source() if options.pictures else None
    gone = write_gallery(run, found, flags, source, page.write)
    for name in sorted(asset.name for asset in _ASSETS.iterdir()):
        page.write(name, _ASSETS.joinpath(name).read_bytes())
    images = {
        part.name: [*copied_images(part, output, page.write)] if options.pictures else []
        for part in parts
    }
    limits = read_limits(output, run.record["archive"]["digest"])
    counts = run.record["counts"]
    own = SavedFigures.of(run.record, found.figures)
    page.write(FIGURES, own.model_dump_json().encode() + b"\n")
    over_time = []
    if before.moments:
        over_time = plots_over_time([*before.moments, moment(run.record, own, parts)])
    text = (
        _environment()
        .get_template(INDEX)
        .render(
            record=run.record,
            facts=_facts(run.record),
            verdict=verdict(counts, parts, flags, limits),
            limits=limits,
            tiles=_tiles(run.record, found, flags, bool(parts)),
            plots=plots_of(found.figures, bool(parts)),
            over_time=over_time,
            left_out=before.left_out,
            kept_plots=KEPT_PLOTS,
            parts=[
                {
                    "part": part,
                    "worst": worst_first(part.findings)[:MOST_FINDINGS],
                    "images": images[part.name],
                }
                for part in parts
            ],
            in_gallery={name for _, name in found.ranks},
            flags=worst_flags(flags),
            gallery=_gallery_facts(found, gone, options),
            failures=list(islice(run.failures(), MOST_FAILURES)),
            reasons=_reasons(run),
            outputs=_outputs(run.record),
        )
    )
    page.write(INDEX, text.encode("utf-8", errors="backslashreplace"))
    page.remove_the_rest()


class _Page:
    """The report's folder, and what was written there."""

    def __init__(self, output: Store) -> None:
        self.output = output
        self.written: set[str] = set()

    def write(self, name: str, data: bytes) -> None:
        self.written.add(REPORT + name)
        self.output.write(REPORT + name, data)

    def remove_the_rest(self) -> None:
        try:
            old = [entry.key for entry in self.output.entries(REPORT)]
        except MissingObjectError:
            old = []
        with ThreadPoolExecutor(CONNECTIONS, "remove") as pool:
            list(pool.map(self.output.delete, [key for key in old if key not in self.written]))


@dataclass(frozen=True)
class Tile:
    """A number of the overview, and what it is of."""

    value: str
    label: str


_ASSETS = files("jobs.page") / "assets"


@cache
def _environment() -> Environment:
    """Templates that escape all that is put into them."""
    made = Environment(
        loader=PackageLoader("jobs.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": shown, "visible": visible, "counted": counted, "path": quote}
    made.globals |= {"box_link": box_link}
    return made


def box_link(key: str, index: int | None) -> str:
    """The address in the page of a picture, or of its box `index`."""
    return "#" + urlencode({"picture": key} | ({} if index is None else {"box": index}))


def _tiles(record: Mapping[str, Any], found: Chosen, flags: Flags, audited: bool) -> list[Tile]:
    counts, figures = record["counts"], found.figures
    tiles = [
        Tile(shown(counts["pictures"]), "pictures"),
        Tile(shown(counts["detections"]), "boxes explained"),
    ]
    if audited:
        tiles.append(Tile(shown(len(flags.by_box)), "boxes flagged"))
    return [
        *tiles,
        Tile(shown(counts["failures"]), "pictures failed"),
        Tile(shown(figures.score.value), "mean score"),
        Tile(shown(figures.energy.value), "mean energy in the box"),
    ]


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    archive, options, times = record["archive"], record["options"], record["times"]
    execution = record["execution"]
    return [
        ("Archive", f"{archive['name']} {archive['version']}"),
        ("Digest", archive["digest"]),
        # An archive's own code says what it was asked; another version may know other fields.
        ("Method", str(options.get("method", NOTHING))),
        ("Target", str(options.get("target", NOTHING))),
        ("Layer", str(options.get("layer") or NOTHING)),
        ("Least score", shown(options.get("score_threshold"))),
        ("Pictures from", ", ".join(record["input"]["uris"])),
        ("Began", date(times["started"])),
        ("Ended", date(times["finished"])),
        (
            "Took",
            f"{times['seconds']:,.1f} s of explaining, {shown(times['pictures_per_second'])}"
            f" pictures a second, on {execution['device']} in {options['precision']}",
        ),
    ]


def _gallery_facts(found: Chosen, gone: int, options: ReportPageOptions) -> dict[str, Any]:
    return {
        "pictures": len(found.ranks),
        "left_out": found.pictures - len(found.ranks),
        "all": found.pictures,
        "boxes": found.boxes,
        "gone": gone,
        "pixels": options.pictures,
    }


def _reasons(run: SavedRun) -> list[tuple[str, str, int]]:
    """Why pictures failed: stage, error, and how often, the most frequent first."""
    if not run.record["counts"]["failures"]:
        return []
    numbers = Counter((str(row["stage"]), str(row["error"])) for row in run.failures())
    return [(*why, number) for why, number in numbers.most_common(MOST_REASONS)]


def _outputs(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Links to what else the run left, below the folder above."""
    found = [("run.json", "run.json: archive, options, counts, times")]
    outputs = record.get("outputs", {})
    if outputs.get("contact_sheet"):
        found.append(("contact-sheet.jpg", "contact sheet"))
    if outputs.get("coco"):
        found.append(("coco/results.json", "COCO results"))
    if record["counts"]["detections"]:
        found.append(("shards/00000/detections.parquet", "rows of the first shard"))
        found.append(("shards/00000/heatmaps.npz", "heatmaps of the first shard"))
    return found
