"""`jobs explain --dry-run`: how much there is to do, and how long that may take."""

from __future__ import annotations

import math
from itertools import islice
from typing import Protocol

from archives.stores.store import Store
from jobs.errors import DONE
from jobs.inputs.listing import Listing
from jobs.options import BATCH_SIZE, JobOptions
from jobs.progress import counted, duration, speed
from jobs.worker.messages import Job, Sampled

BATCHES_TRIED = 2


class Trial(Protocol):
    """An engine's part in it."""

    @property
    def workers(self) -> int:
        """How many there are, once the engine is ready."""
        ...

    def try_out(self, job: Job) -> Sampled:
        """Has the job's trial explained and timed."""
        ...


def dry_run(options: JobOptions, listing: Listing, engine: Trial, output: Store) -> int:
    """Prints counts and a guess of the time, made from the first pictures; writes nothing."""
    shards = math.ceil(listing.count / options.shard_size)
    size = f", {listing.bytes / 1e6:,.1f} MB" if listing.bytes else ""
    print(f"{counted(listing.count, 'picture')}{size}, in {counted(shards, 'shard')}.")
    tried_out = BATCHES_TRIED * (options.batch_size or BATCH_SIZE)
    keys = [entry.key for entry in islice(listing.entries(), tried_out)]
    job = Job(
        source=listing.store.uri,
        output=options.output,
        pictures=listing.count,
        shard_size=options.shard_size,
        overlays="none",
        trial=tuple(keys),
    )
    tried = engine.try_out(job)
    if tried.pictures:
        guess = listing.count * tried.seconds / tried.pictures / engine.workers
        print(
            f"The first {tried.pictures} of them took {speed(tried.pictures, tried.seconds)}, once"
            f" loaded: about {duration(guess)} with {counted(engine.workers, 'worker')}, where the"
            " store keeps up."
        )
    else:
        print(f"None of the first {len(keys)} could be read, so there is no guess of the time.")
    print(f"Nothing was written to {output.uri}.")
    return DONE
