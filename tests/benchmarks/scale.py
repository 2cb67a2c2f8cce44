"""What a night of bulk jobs costs, worked out: prints the tables of docs/scale.md.

    python -m tests.benchmarks.scale
    python -m tests.benchmarks.scale --pictures 5000000 --pictures_per_second 120

Every figure of Inputs and Prices may be given; nothing is measured here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from math import ceil
from typing import Any

from archives.stores.store import CONNECTIONS

GB = 1e9
SMALL_SHARD, LARGE_SHARDS = 256, (1_024, 4_096)
OTHER_SPEEDS = (0.4, 1.0, 4.0)


def given(default: float, what: str, source: str) -> Any:
    """A figure that a table shows with its meaning and where it comes from."""
    return field(default=default, metadata={"what": what, "source": source})


@dataclass(frozen=True)
class Inputs:
    """What a night is reckoned from."""

    pictures: float = given(100_000_000, "pictures a night", "the question")
    hours: float = given(8, "hours of a night", "ASSUMED")
    picture_bytes: float = given(100_000, "bytes of a picture", "ASSUMED")
    pictures_per_second: float = given(
        50, "pictures a second of a GPU", "ASSUMED; to be replaced by your `MEASURED:` figure"
    )
    decode_ms: float = given(
        6.0, "ms of one core to decode a picture", "MEASURED: 640 x 480, 97 KB (1,024 x 768: 10.0)"
    )
    heatmap_bytes: float = given(
        43_482,
        "bytes of heatmaps.npz for a picture",
        "MEASURED: 11,131,334 of 256, with 1,371 boxes",
    )
    table_bytes: float = given(
        324, "bytes of detections.parquet for a picture", "MEASURED: 82,902 of 256"
    )
    shard_bytes: float = given(
        1_042, "bytes of failures.parquet and stats.json of a shard", "MEASURED: 771 and 271"
    )
    listing_bytes: float = given(
        21.3, "bytes of the kept listing for a key", "MEASURED: 500,000 keys of 37 characters"
    )
    spool_bytes: float = given(
        175, "bytes of temporary disk for a key while listing", "MEASURED: two copies of 87.5"
    )
    listing_us: float = given(
        10.6, "µs of one core to sort, keep and write a key", "MEASURED: 5.3 s for 500,000"
    )
    shard_size: float = given(SMALL_SHARD, "pictures of a shard", "`--shard-size`, its default")
    beat_seconds: float = given(15, "seconds between a part's signs of life", "`jobs/lease.py`")
    piece_rows: float = given(8_192, "keys of a piece of the listing", "`jobs/inputs/plan.py`")
    request_ms: float = given(30, "ms of a small request, alone", "ASSUMED")
    list_ms: float = given(100, "ms of a LIST request of 1,000 keys", "ASSUMED")
    cores: float = given(4, "cores beside each GPU", "ASSUMED: the instance below")
    days_kept: float = given(30, "days that a night's output is kept", "ASSUMED")


@dataclass(frozen=True)
class Prices:
    """In dollars: AWS's public list prices, us-east-1; see the page for how old they are."""

    get: float = given(0.0004, "1,000 GET", "S3 Standard")
    put: float = given(0.005, "1,000 PUT or LIST", "S3 Standard")
    storage: float = given(0.023, "a GB for a month", "S3 Standard, the first 50 TB")
    gpu: float = given(1.006, "an hour of a GPU", "EC2 g5.xlarge on demand: A10G, 4 vCPU, 16 GiB")


# What S3 takes for one prefix before it answers 503, a second.
PREFIX_GETS, PREFIX_PUTS = 5_500, 3_500


@dataclass(frozen=True)
class Night:
    """The arithmetic. Seconds, bytes and dollars unless a name says otherwise."""

    inputs: Inputs
    prices: Prices

    @property
    def seconds(self) -> float:
        return self.inputs.hours * 3600

    @property
    def shards(self) -> int:
        return ceil(self.inputs.pictures / self.inputs.shard_size)

    @property
    def gpu_seconds(self) -> float:
        return self.inputs.pictures / self.inputs.pictures_per_second

    @property
    def gpus(self) -> int:
        return ceil(self.gpu_seconds / self.seconds)

    @property
    def pieces(self) -> int:
        return ceil(self.inputs.pictures / self.inputs.piece_rows)

    @property
    def beats(self) -> int:
        return ceil(self.gpu_seconds / self.inputs.beat_seconds)

    @property
    def lists(self) -> int:
        return ceil(self.inputs.pictures / 1000)

    def requests(self) -> list[tuple[str, str, str, float]]:
        """What, how it is reckoned, "GET" or "PUT", how many."""
        shards, gpus, pieces = self.shards, self.gpus, self.pieces
        return [
            ("pictures", "pictures", "GET", self.inputs.pictures),
            (
                "is a shard done, is the lease ours, and in the report",
                "3 shards",
                "GET",
                3 * shards,
            ),
            ("pieces of the listing", "pieces + GPUs", "GET", pieces + gpus),
            ("signs of life, looked at", "GPU seconds / 15", "GET", self.beats),
            ("heatmaps, detections, failures, stats", "4 shards", "PUT", 4 * shards),
            ("pieces of the listing", "pictures / 8,192", "PUT", pieces),
            ("signs of life", "GPU seconds / 15", "PUT", self.beats),
            ("LIST, without an inventory", "pictures / 1,000", "PUT", self.lists),
        ]

    def requests_cost(self, kinds: Iterable[str] = ("GET", "PUT")) -> float:
        """Dollars for all requests of these kinds."""
        return sum(self._cost(kind, n) for _, _, kind, n in self.requests() if kind in kinds)

    def _cost(self, kind: str, number: float) -> float:
        return number / 1000 * (self.prices.get if kind == "GET" else self.prices.put)

    @property
    def bytes_in(self) -> float:
        return self.inputs.pictures * self.inputs.picture_bytes

    @property
    def bytes_out(self) -> float:
        each = self.inputs.heatmap_bytes + self.inputs.table_bytes
        return self.inputs.pictures * each + self.shards * self.inputs.shard_bytes

    @property
    def storage_cost(self) -> float:
        return self.bytes_out / GB * self.prices.storage * self.inputs.days_kept / 30

    @property
    def gpu_cost(self) -> float:
        return self.gpu_seconds / 3600 * self.prices.gpu

    def with_inputs(self, **changed: float) -> Night:
        values = {each.name: getattr(self.inputs, each.name) for each in fields(self.inputs)}
        return Night(Inputs(**{**values, **changed}), self.prices)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns after the first that hold figures alone are set to the right."""
    lines = [list(row) for row in rows]
    right = [all(row[i][:1] in "0123456789$" for row in lines) for i in range(len(head))]
    ruler = ["---:" if each else "---" for each in right]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *lines)) + "\n"


def tables(inputs: Inputs | None = None, prices: Prices | None = None) -> dict[str, str]:
    """The page's tables, by name, in its order."""
    night = Night(inputs or Inputs(), prices or Prices())
    return {
        "inputs": _figures(night.inputs, "figure"),
        "prices": _figures(night.prices, "price of"),
        "requests": _requests(night),
        "bytes": _bytes(night),
        "money": _money(night),
        "limits": _limits(night),
        "shards": _shards(night),
    }


def _figures(of: Inputs | Prices, head: str) -> str:
    money = "$" if isinstance(of, Prices) else ""
    return table(
        (head, "value", "from"),
        (
            (each.metadata["what"], f"{money}{getattr(of, each.name):,}", each.metadata["source"])
            for each in fields(of)
        ),
    )


def _requests(night: Night) -> str:
    rows = [
        (kind, what, how, f"{number:,.0f}", _dollars(night._cost(kind, number)))
        for what, how, kind, number in night.requests()
    ]
    total = sum(number for _, _, _, number in night.requests())
    return table(
        ("", "what", "how many", "number", "cost"),
        [*rows, ("all", "", "", f"{total:,.0f}", _dollars(night.requests_cost()))],
    )


def _bytes(night: Night) -> str:
    inputs = night.inputs
    parts = (
        ("in", "pictures", night.bytes_in),
        ("out", "heatmaps.npz", inputs.pictures * inputs.heatmap_bytes),
        ("out", "detections.parquet", inputs.pictures * inputs.table_bytes),
        ("out", "failures.parquet, stats.json", night.shards * inputs.shard_bytes),
        ("out", "the listing", inputs.pictures * inputs.listing_bytes),
    )
    return table(
        ("", "what", "GB", "MB a second, all GPUs", "of each GPU"),
        (
            (
                *(way, what, f"{size / GB:,.1f}", f"{size / 1e6 / night.seconds:,.2f}"),
                f"{size / 1e6 / night.seconds / night.gpus:,.3f}",
            )
            for way, what, size in parts
        ),
    )


def _money(night: Night) -> str:
    rows = []
    for factor in OTHER_SPEEDS:
        each = night.with_inputs(pictures_per_second=night.inputs.pictures_per_second * factor)
        total = each.gpu_cost + each.requests_cost() + each.storage_cost
        rows.append(
            (
                f"{each.inputs.pictures_per_second:,.0f}",
                f"{each.gpu_seconds / 3600:,.1f}",
                f"{each.gpus:,}",
                _dollars(each.gpu_cost),
                _dollars(each.requests_cost()),
                _dollars(each.storage_cost),
                _dollars(total),
                f"${total / each.inputs.pictures * 1e6:,.2f}",
            )
        )
    return table(
        (
            *("pictures a second of a GPU", "GPU hours", "GPUs", "GPUs' cost", "requests"),
            *("storage", "a night", "a million pictures"),
        ),
        rows,
    )


def _limits(night: Night) -> str:
    inputs = night.inputs
    gets = inputs.pictures / night.seconds
    puts = 4 * night.shards / night.seconds
    listing = night.lists * inputs.list_ms / 1000 / 3600
    decode = inputs.pictures_per_second * inputs.decode_ms / 1000
    rows = (
        ("LIST, one after the other", f"{listing:,.1f} h", f"{inputs.hours:,.0f} h, the night"),
        (
            "sorting and keeping the keys, one core",
            f"{inputs.pictures * inputs.listing_us / 1e6 / 3600:,.2f} h",
            "none until that is done",
        ),
        (
            "the report's stats.json, 16 at once",
            f"{night.shards * inputs.request_ms / 1000 / 60 / CONNECTIONS:,.0f} min",
            "the morning",
        ),
        ("GET a second", f"{gets:,.0f}", f"{PREFIX_GETS:,} of one prefix"),
        ("PUT a second", f"{puts:,.0f}", f"{PREFIX_PUTS:,} of one prefix"),
        (
            "temporary disk while listing",
            f"{inputs.pictures * inputs.spool_bytes / GB:,.1f} GB",
            "/tmp",
        ),
        ("cores that decode, of each GPU", f"{decode:,.2f}", f"{inputs.cores:,.0f}"),
        (
            "pictures a second of a GPU that cores can decode",
            f"{inputs.cores * 1000 / inputs.decode_ms:,.0f}",
            f"{inputs.pictures_per_second:,.0f} are needed",
        ),
    )
    return table(("what", "comes to", "where it ends"), rows)


def _shards(night: Night) -> str:
    rows = []
    for size in (SMALL_SHARD, *LARGE_SHARDS):
        each = night.with_inputs(shard_size=size)
        rows.append(
            (
                f"{size:,}",
                f"{each.shards:,}",
                f"{4 * each.shards:,}",
                _dollars(each._cost("PUT", 4 * each.shards)),
                f"{each.shards * each.inputs.request_ms / 60_000 / CONNECTIONS:,.1f} min",
                f"{size / each.inputs.pictures_per_second:,.0f} s",
                f"{size * each.inputs.heatmap_bytes / 1e6:,.0f} MB",
            )
        )
    return table(
        (
            *("pictures of a shard", "shards", "objects", "their PUTs"),
            *("report, 16 at once", "GPU time lost by a kill", "maps held at once"),
        ),
        rows,
    )


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables for the figures given."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    for kind in (Inputs, Prices):
        for each in fields(kind):
            parser.add_argument(
                f"--{each.name}", type=float, default=each.default, help=each.metadata["what"]
            )
    values = vars(parser.parse_args(arguments))
    inputs = Inputs(**{each.name: values[each.name] for each in fields(Inputs)})
    prices = Prices(**{each.name: values[each.name] for each in fields(Prices)})
    for name, text in tables(inputs, prices).items():
        print(f"{name}\n\n{text}")


if __name__ == "__main__":
    main()
