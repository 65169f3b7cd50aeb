"""Detection in very many images on the machines of a Ray cluster, or on this one: read, decode, detect, write Parquet.

Reading and decoding are tasks of any CPU; the network is in a pool of workers that each hold a predictor. Blocks of
images stream from one to the next, so that all of it never has to be in memory. What a worker that died had not
finished is done again by another, with the same result.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from engine.data.any_image import any_image
from engine.data.reading import Reading
from engine.device import num_cpus
from engine.errors import InputError
from engine.files import new_folder
from engine.inference.record_table import records_in, to_table
from engine.inference.records import RecordFile, detections_record, error_record
from engine.inference.stages import stages_of

if TYPE_CHECKING:
    import pyarrow

PARQUET, LINES = "predictions.parquet", "predictions.jsonl"
MOST_BLOCKS = 10_000
"""Of rows that travel together; more would cost the driver more than they gain."""
ROWS_PER_FILE = 10_000

Wanted = TypeVar("Wanted")


@dataclass(frozen=True)
class Cluster:
    """Where the work is done.

    Attributes:
        address: of a running cluster, "auto" for that of this machine; "" starts one here, which ends with the run.
        workers: how many predictors.
        cpus, gpus: of each; 0 CPUs are its share of this machine, or 1 of another cluster.
    """

    address: str = ""
    workers: int = 2
    cpus: int = 0
    gpus: float = 0.0

    @property
    def cpus_of_worker(self) -> int:
        return self.cpus or (1 if self.address else max(1, num_cpus() // self.workers))


def detect_on_ray(
    build: Callable[[], Any],
    reading: Reading,
    places: Sequence[str],
    output: Path,
    cluster: Cluster,
    batch_size: int = 1,
) -> None:
    """Detect in images, and write the folders and files `PARQUET` and `LINES` to the new folder `output`.

    Args:
        build: makes the predictor, in each worker.
        reading: how its images become pixels.
        places: paths of images, as all machines know them.
        output: appears when everything is done; all machines must be able to write there.
        batch_size: images that go through the model at once.

    Raises:
        InputError: Ray is not installed or cannot be reached, the folder exists or cannot be written, or a predictor
            cannot be built or fails.
    """
    ray = _started(cluster)
    try:
        with new_folder(output) as folder:
            images = ray.data.from_arrow(_blocks(places, batch_size))
            decode = partial(_decode, reading=reading)
            # What asks for as much as a worker would be done in the worker.
            pixels = images.map_batches(decode, batch_format="pyarrow", batch_size=1, num_cpus=0.5)
            found = pixels.map_batches(
                _Worker,
                fn_constructor_args=(build,),
                batch_format="pyarrow",
                batch_size=batch_size,
                compute=ray.data.ActorPoolStrategy(size=cluster.workers),
                num_cpus=cluster.cpus_of_worker,
                num_gpus=cluster.gpus,
            )
            _explained(
                partial(found.write_parquet, str((folder / PARQUET).absolute()), min_rows_per_file=ROWS_PER_FILE)
            )
            lines = RecordFile(folder / LINES)
            for record in records_in(folder / PARQUET, len(places)):
                lines.write(record)
            lines.close()
    finally:
        ray.shutdown()


def _started(cluster: Cluster) -> Any:
    """The module `ray`, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"Ray is not installed ({error}): pip install 'engine[ray]'") from None
    here = {
        # Those of the workers, and as many that read and write.
        "num_cpus": cluster.workers * (cluster.cpus_of_worker + 1),
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",  # nobody else can reach it
    }
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(**({"address": cluster.address} if cluster.address else here), **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"Ray cannot be started or reached ({reason}); see --address and ray status") from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _blocks(places: Sequence[str], batch_size: int) -> list[pyarrow.Table]:
    """Tables of `index` and `place` with as many rows as travel together."""
    import pyarrow as pa

    rows = max(4 * batch_size, math.ceil(len(places) / MOST_BLOCKS))
    table = pa.table({"index": range(len(places)), "place": pa.array(map(os.fsencode, places), pa.binary())})
    return [table.slice(start, rows) for start in range(0, len(table), rows)]


def _decode(rows: pyarrow.Table, reading: Reading) -> pyarrow.Table:
    """One row of `index` and `place` with the image as pixels (H, W, C), or the reason why there are none."""
    import pyarrow as pa

    pixels, error = np.zeros((0, 0, 0), np.uint8), None
    try:
        pixels = any_image(Path(os.fsdecode(rows["place"][0].as_py())), reading, "bgr")
    except InputError as fault:
        error = str(fault)
    columns = {
        "pixels": pa.array([pixels.tobytes()], pa.large_binary()),
        "shape": [list(pixels.shape)],
        "type": [pixels.dtype.name],
        "error": pa.array([error], pa.string()),
    }
    return pa.table({"index": rows["index"], "place": rows["place"], **columns})


class _Worker:
    """A predictor in a process of its own: rows of `_decode` in, rows of `record_table` out."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._stages = stages_of(build())

    def __call__(self, rows: pyarrow.Table) -> pyarrow.Table:
        images = [
            np.frombuffer(pixels.as_buffer(), kind.as_py()).reshape(shape.as_py()).copy() if shape.as_py()[0] else None
            for pixels, shape, kind in zip(rows["pixels"], rows["shape"], rows["type"], strict=True)
        ]
        readable = [image for image in images if image is not None]
        found = iter(self._stages.run([self._stages.network_input(each) for each in readable]) if readable else ())
        records = []
        for place, image, error in zip(rows["place"], images, rows["error"], strict=True):
            name = os.fsdecode(place.as_py())
            if image is None:
                records.append(error_record(name, error.as_py()))
            else:
                finished = self._stages.finish(next(found), image.shape[:2])
                records.append(detections_record(name, finished, self._stages.class_names))
        return to_table(rows["index"].to_pylist(), records)


def _explained(act: Callable[[], Wanted]) -> Wanted:
    """What `act` returns; an `InputError` of a worker is raised here as its own, without the pages of Ray around it."""
    try:
        return act()
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, InputError):
                raise InputError(str(cause).splitlines()[-1]) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise
