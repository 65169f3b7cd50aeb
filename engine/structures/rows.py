"""What `Targets` and `Detections` share: some of their fields hold one row for each box."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

_ROW = "row"
Self = TypeVar("Self", bound="Rows")


def row(*shape: int, dtype: torch.dtype = torch.float32, is_optional: bool = False) -> Any:
    """Declares a field of a dataclass that holds one row of `shape` for each box, (N, *shape); None if optional."""
    return field(metadata={_ROW: (shape, dtype)}, **({"default": None} if is_optional else {}))


class Rows:
    """Base of a dataclass whose fields declared by `row` have the same length; the other fields describe the image.

    A further field (a mask, a track id) is one more line of the dataclass, or of one derived from it:
    `tracks: Tensor | None = row(dtype=torch.int64, is_optional=True)`.
    """

    @classmethod
    def _row_fields(cls) -> Iterator[Field]:
        return (each for each in fields(cls) if _ROW in each.metadata)

    def __len__(self) -> int:
        return len(getattr(self, next(self._row_fields()).name))

    def __getitem__(self: Self, index: Tensor | slice) -> Self:
        """The rows that a bool mask (N,), indices (M,) or a slice select."""
        return self.map_rows(lambda rows: rows[index])

    def map_rows(self: Self, function: Callable[[Any], Any]) -> Self:
        """`function` applied to each field that holds rows."""
        names = [each.name for each in self._row_fields() if getattr(self, each.name) is not None]
        return replace(self, **{name: function(getattr(self, name)) for name in names})

    def to(self: Self, device: torch.device | str) -> Self:
        # A non-blocking copy to the CPU could be read before it is complete.
        non_blocking = torch.device(device).type == "cuda"
        return self.map_rows(lambda rows: rows.to(device, non_blocking=non_blocking))

    def numpy(self: Self) -> Self:
        """The same with NumPy arrays in the place of tensors, which share their memory on the CPU.

        Example:
            >>> from engine.structures import Detections
            >>> Detections.empty(size=(10, 20)).numpy().labels
            array([], dtype=int64)
        """
        return self.map_rows(lambda rows: rows.detach().cpu().numpy())

    @classmethod
    def cat(cls: type[Self], parts: Sequence[Self]) -> Self:
        """The rows of all `parts` (at least one) in their order; the other fields are the first one's.

        An optional field must be there in all parts or in none.
        """
        names = [each.name for each in cls._row_fields() if getattr(parts[0], each.name) is not None]
        return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    @classmethod
    def empty(cls: type[Self], **of_image: Any) -> Self:
        """No rows; `of_image` are the other fields.

        Example:
            >>> from engine.structures import Detections
            >>> Detections.empty(size=(10, 20)).boxes.shape
            torch.Size([0, 4])
        """
        declared = {each.name: each.metadata[_ROW] for each in cls._row_fields()}
        return cls(
            **{name: torch.zeros(0, *shape, dtype=dtype) for name, (shape, dtype) in declared.items()}, **of_image
        )
