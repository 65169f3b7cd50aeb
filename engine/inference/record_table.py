"""Records of detections, see `records`, as tables of Arrow, which Parquet files hold.

A row is an image: `index`, its place in the input from 0; `image`; `height` and `width`; `detections`, a list of
`class`, `score` and `box`; or `error`, and then the three before are null. Numbers are those of the JSON lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from engine.inference.records import Record

if TYPE_CHECKING:
    import pyarrow


def table_schema() -> pyarrow.Schema:
    import pyarrow as pa

    detection = pa.struct([("class", pa.string()), ("score", pa.float64()), ("box", pa.list_(pa.float64()))])
    columns = [("index", pa.int64()), ("image", pa.string()), ("height", pa.int32()), ("width", pa.int32())]
    return pa.schema([*columns, ("detections", pa.list_(detection)), ("error", pa.string())])


def to_table(indices: Sequence[int], records: Sequence[Record]) -> pyarrow.Table:
    """The rows of images, each with its place in the input."""
    import pyarrow as pa

    return pa.Table.from_pylist([_row(*each) for each in zip(indices, records, strict=True)], table_schema())


def _row(index: int, record: Record) -> dict[str, Any]:
    height, width = record.get("size", (None, None))
    image = record["image"].encode(errors="backslashreplace").decode()  # a file name may be no text
    found = {"detections": record.get("detections"), "error": record.get("error")}
    return {"index": index, "image": image, "height": height, "width": width, **found}


def records_in(folder: Path, count: int) -> Iterator[Record]:
    """The records of the Parquet files in `folder`, in the order of the input; their table is held in memory.

    Raises:
        InputError: there are not `count` of them, each once.
    """
    import pyarrow.dataset

    table = pyarrow.dataset.dataset(folder, schema=table_schema(), format="parquet").to_table().sort_by("index")
    if table["index"].to_pylist() != list(range(count)):
        raise InputError(f"{folder}: holds {len(table)} rows that are not those of the {count} images; run it again")
    for batch in table.to_batches():
        yield from map(_record, batch.to_pylist())


def _record(row: dict[str, Any]) -> Record:
    if row["error"] is not None:
        return {"image": row["image"], "error": row["error"]}
    return {"image": row["image"], "size": [row["height"], row["width"]], "detections": row["detections"]}
