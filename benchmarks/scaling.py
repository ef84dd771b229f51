"""What SEN12MS in full takes against S3 on 1, 16, 64 and 256 workers: prints the table of ``docs/scaling.md``.

A model, not a measurement: nobody ran 256 workers. ``Costs`` holds what was measured on this code (``s3_costs.py``,
``endtoend.py``), ``Cloud`` what Amazon publishes. A worker is one process on one of the two cores of a machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

WORKERS = (1, 16, 64, 256)
PATCHES, BATCH, MODALITIES = 180_662, 256, 3
FILE_BYTES = 525_172 + 1_706_432 + 262_788
"""Bytes of one triplet's files."""
SCENES = 252
LISTED = 1000
"""Keys in one answer to a listing."""
AHEAD = 8
"""Patches whose files are asked for together."""
BURST = 10e9
"""Bits a second that an m5.large may reach for some time."""
TOGETHER = 128
"""Requests that fsspec has under way at once."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was measured. Seconds are CPU seconds of one core of the benchmark's machine."""

    write_cpu: float
    """A batch: reading from S3, hashing, encoding, uploading."""
    verify_cpu: float
    """A batch, read again from S3."""
    writes: int
    """PUT and POST of a batch: shards in one part or several, headers, receipt."""
    verify_reads: int
    """GET of a batch's verification."""
    objects: dict[str, int]
    """Bytes of a batch's objects."""
    driver_start: float
    """The driver's seconds for the listing of all files and the plan."""
    driver_write: float
    """Driver and scheduler, for all tasks of writing."""
    driver_end: float
    """The driver's seconds for all coordinates from all receipts, and for the catalog."""
    driver_verify: float
    """Driver and scheduler, for all tasks of verifying."""
    small_objects: int
    """Objects of a cube that are no shard and no chunk of headers."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """What is assumed of Amazon's side, as published for us-east-1."""

    latency: float = 0.1
    """Seconds until the first byte: "roughly 100–200 milliseconds" (S3 user guide, performance design patterns)."""
    get_rate: int = 5_500
    """GET a second for each prefix (S3 user guide, optimizing performance)."""
    put_rate: int = 3_500
    """PUT and POST a second for each prefix (the same)."""
    network: float = 0.75e9 / 8 / 2
    """Bytes a second for a worker: half of an m5.large's baseline of 0.75 Gbit/s; it may burst to 10 for a while."""
    machine_hour: float = 0.096
    """Dollars for an m5.large: 2 cores, 8 GB (EC2 on-demand price)."""
    get_price: float = 0.0004 / 1000
    put_price: float = 0.005 / 1000
    """Dollars a request; listing costs as much as writing (S3 price list)."""
    month_price: float = 0.023 / 1e9
    """Dollars for a byte kept for a month, S3 Standard."""


COSTS = Costs(
    write_cpu=4.0,
    verify_cpu=0.64,
    writes=8,
    verify_reads=11,
    objects={
        "s1": 29_633_175,
        "s2": 58_621_955,
        "lc": 217_933,
        "originals/header": 68_569,
        "receipt": 141_470,
    },
    driver_start=10.7,
    driver_write=40.6,
    driver_end=4.4,
    driver_verify=20.4,
    small_objects=2925 - 4 * 706,
)


@dataclass(frozen=True)
class Build:
    """One build of everything on so many workers."""

    workers: int
    costs: Costs = COSTS
    cloud: Cloud = Cloud()

    @property
    def batches(self) -> int:
        """Tasks of each stage."""
        return math.ceil(PATCHES / BATCH)

    @property
    def cube_bytes(self) -> int:
        """Bytes of all shards and headers."""
        return round(PATCHES / BATCH * sum(size for name, size in self.costs.objects.items() if name != "receipt"))

    @property
    def reads(self) -> int:
        """GET of the whole build."""
        small = 2 * self.costs.small_objects  # verified, and read again by the catalog
        return PATCHES * MODALITIES + self.batches * (self.costs.verify_reads + 1) + small

    @property
    def writes(self) -> int:
        """PUT, POST and listings of the whole build."""
        listings = PATCHES * MODALITIES // LISTED + 3 * self.batches * 4 // LISTED
        return self.batches * self.costs.writes + self.costs.small_objects + SCENES + listings

    def write_batch(self) -> dict[str, float]:
        """Return the seconds a worker spends on writing one batch. One thread does it all, so they add up."""
        waits = BATCH / AHEAD + self.costs.writes  # files come eight patches at a time, objects go one after another
        moved = BATCH * FILE_BYTES + sum(self.costs.objects.values())
        return {
            "CPU": self.costs.write_cpu,
            "network of a worker": moved / self.cloud.network,
            "latency": waits * self.cloud.latency,
        }

    def verify_batch(self) -> dict[str, float]:
        """Return the seconds a worker spends on verifying one batch."""
        moved = sum(size for name, size in self.costs.objects.items() if name != "receipt")
        waits = self.costs.verify_reads
        return {
            "CPU": self.costs.verify_cpu,
            "network of a worker": moved / self.cloud.network,
            "latency": waits * self.cloud.latency,
        }

    @property
    def rounds(self) -> int:
        """Batches the busiest worker has."""
        return math.ceil(self.batches / self.workers)

    @property
    def writing(self) -> float:
        """Seconds of the writing stage: that of the workers, or of what they share if that is slower."""
        return max(self.rounds * sum(self.write_batch().values()), *self._shared_writing().values())

    def _shared_writing(self) -> dict[str, float]:
        return {
            "GET rate of one prefix": PATCHES * MODALITIES / self.cloud.get_rate,
            "PUT rate of one prefix": self.batches * self.costs.writes / self.cloud.put_rate,
            "driver": self.costs.driver_write,
        }

    @property
    def verifying(self) -> float:
        """Seconds of the verifying stage."""
        reading = self.batches * self.costs.verify_reads / self.cloud.get_rate
        return max(self.rounds * sum(self.verify_batch().values()), reading, self.costs.driver_verify)

    @property
    def starting(self) -> float:
        """Seconds of listing and planning, which one process does alone."""
        return self.costs.driver_start + PATCHES * MODALITIES / LISTED * self.cloud.latency

    @property
    def ending(self) -> float:
        """Seconds of coordinates, metadata and catalog, which one process does alone."""
        waits = 3 * self.costs.small_objects + 2 * SCENES + self.batches / TOGETHER
        return self.costs.driver_end + waits * self.cloud.latency

    @property
    def seconds(self) -> float:
        """Seconds of everything."""
        return self.starting + self.writing + self.ending + self.verifying

    def slowest_part(self) -> str:
        """Return what most of the time goes to."""
        parts = {"driver": self.starting + self.ending}
        for batch in (self.write_batch(), self.verify_batch()):
            for name, seconds in batch.items():
                parts[name] = parts.get(name, 0.0) + self.rounds * seconds
        name = max(parts, key=lambda name: parts[name])
        return f"{name}, {parts[name] / self.seconds:.0%}"

    def shared_limit(self) -> str:
        """Return which of the things that workers share holds them up while they write."""
        shared = self._shared_writing()
        name = max(shared, key=lambda name: shared[name])
        return name if shared[name] > self.rounds * sum(self.write_batch().values()) else "none"

    @property
    def bursting(self) -> Build:
        """The same build on machines that always have the most network they may."""
        return replace(self, cloud=replace(self.cloud, network=BURST / 8 / 2))

    @property
    def compute_price(self) -> float:
        """Dollars for the machines of all workers and one more for the driver."""
        machines = math.ceil(self.workers / 2) + 1
        return machines * self.cloud.machine_hour * self.seconds / 3600

    @property
    def request_price(self) -> float:
        """Dollars for all requests."""
        return self.reads * self.cloud.get_price + self.writes * self.cloud.put_price

    @property
    def read_rate(self) -> float:
        """Bytes a second that the writing stage reads."""
        return PATCHES * FILE_BYTES / self.writing


def table() -> str:
    """Return the table as Markdown."""
    builds = [Build(workers) for workers in WORKERS]
    rows = {
        "time in all": [_duration(build.seconds) for build in builds],
        "if machines burst to 10 Gbit/s throughout": [_duration(build.bursting.seconds) for build in builds],
        "listing and planning, one process": [_duration(build.starting) for build in builds],
        "writing": [_duration(build.writing) for build in builds],
        "coordinates, metadata, catalog, one process": [_duration(build.ending) for build in builds],
        "verifying": [_duration(build.verifying) for build in builds],
        "batches of the busiest worker": [f"{build.rounds:,} of {build.batches:,}" for build in builds],
        "read from S3 while writing": [f"{build.read_rate / 1e6:,.0f} MB/s" for build in builds],
        "GET a second while writing": [f"{PATCHES * MODALITIES / build.writing:,.0f}" for build in builds],
        "most time goes to": [build.slowest_part() for build in builds],
        "shared limit reached": [build.shared_limit() for build in builds],
        "machines": [f"${build.compute_price:,.2f}" for build in builds],
        "requests": [f"${build.request_price:,.2f}" for build in builds],
        "GET": [f"{build.reads:,}" for build in builds],
        "PUT, POST, LIST": [f"{build.writes:,}" for build in builds],
        "cube": [f"{build.cube_bytes / 1e9:,.0f} GB" for build in builds],
        "cube kept for a month": [f"${build.cube_bytes * build.cloud.month_price:,.2f}" for build in builds],
        "objects": [f"{4 * build.batches + build.costs.small_objects:,}" for build in builds],
    }
    for name, size in COSTS.objects.items():
        rows[f"one object: {name}"] = [_size(size)] * len(builds)
    head = ["", *(f"{workers} worker{'s' if workers > 1 else ''}" for workers in WORKERS)]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


if __name__ == "__main__":
    print(table())
