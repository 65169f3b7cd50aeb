"""What the run needs against what the machine has: memory, time, disk, shared memory, CPUs."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.doctor.case import CHECKS, Case, Cost, Machine
from engine.data.doctor.findings import Finding, declare

_LONG = 7 * 86400  # seconds
_MANY_IMAGES = 1000  # from which on a reading process of its own pays

COST = declare(
    "COST",
    "note",
    "An estimate of memory, time and disk space; the message says how they were estimated.",
    "Lower INPUT sizes, SOLVER.IMS_PER_BATCH or SOLVER.MAX_ITER if it is too much.",
)
MEMORY = declare(
    "MEMORY_SHORT",
    "warning",
    "A training step is estimated to need more memory than is free.",
    "Raise SOLVER.ACCUMULATE, or lower INPUT.MIN_SIZE_TRAIN or SOLVER.IMS_PER_BATCH (BASE_LR in proportion).",
)
TIME = declare(
    "TIME_LONG",
    "warning",
    "The training is estimated to take more than a week on this machine.",
    "Lower SOLVER.MAX_ITER or INPUT sizes, or use another machine.",
)
DISK = declare(
    "DISK_SHORT",
    "error",
    "The checkpoints of the run need more space than is free where OUTPUT_DIR lies.",
    "Set SOLVER.KEEP_CHECKPOINTS, raise SOLVER.CHECKPOINT_PERIOD, or choose another OUTPUT_DIR.",
)
SHARED = declare(
    "SHM_SMALL",
    "note",
    "/dev/shm has less room than the batches that the loader holds. Images then travel another way; semaphores need a "
    "little of it.",
    "Give the container more (--shm-size=1g).",
)
WORKERS = declare(
    "WORKERS_MANY",
    "note",
    "DATALOADER.NUM_WORKERS is larger than the number of CPUs; no more are started.",
    "Set it to the number of CPUs, or one less.",
)
NO_WORKERS = declare(
    "WORKERS_NONE",
    "note",
    "DATALOADER.NUM_WORKERS is 0, so that each step waits for its images.",
    "Set it to 1 or more.",
)


@CHECKS.register("machine")
def check_machine(case: Case) -> Iterator[Finding]:
    """The needs of the run against this machine."""
    machine = case.machine
    if machine is None:
        return
    if case.cost:
        yield from _cost(case.cost, machine)
    if machine.workers > machine.cpus:
        yield WORKERS.finding(f"DATALOADER.NUM_WORKERS is {machine.workers}, but there are {machine.cpus} CPUs")
    images = sum(each.num_images for each in case.having("train"))
    if not machine.workers and machine.cpus > 1 and images >= _MANY_IMAGES:
        yield NO_WORKERS.finding(f"DATALOADER.NUM_WORKERS is 0 for {images} images, on {machine.cpus} CPUs")
    held = 2 * min(machine.workers, machine.cpus) * machine.batch_bytes  # two batches per worker
    if machine.shared_memory is not None and held > machine.shared_memory:
        message = f"/dev/shm has {_size(machine.shared_memory)} free, the loader holds {_size(held)} of images"
        yield SHARED.finding(message)


def _cost(cost: Cost, machine: Machine) -> Iterator[Finding]:
    message = f"about {_size(cost.memory)} of memory, {_time(cost.seconds)} and {_size(cost.disk)} of disk; {cost.text}"
    yield COST.finding(message)
    if machine.memory and cost.memory > machine.memory:
        yield MEMORY.finding(f"a step needs about {_size(cost.memory)}, {_size(machine.memory)} are free")
    if cost.seconds > _LONG:
        yield TIME.finding(f"the training takes about {_time(cost.seconds)}")
    if machine.disk and cost.disk > machine.disk:
        yield DISK.finding(f"checkpoints take about {_size(cost.disk)}, {_size(machine.disk)} are free")


def _size(count: float) -> str:
    """Bytes in words.

    Example:
        >>> _size(3e6), _size(2.5e9)
        ('3 MB', '2.5 GB')
    """
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _time(seconds: float) -> str:
    """
    Example:
        >>> _time(90), _time(7200), _time(864000)
        ('1.5 minutes', '2 hours', '10 days')
    """
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.4 * length or unit == "minutes":
            return f"{seconds / length:.2g} {unit}"
    return ""
