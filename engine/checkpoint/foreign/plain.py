"""State dicts under the names of our models, saved by `torch.save(model.state_dict())`: nothing to translate."""

from __future__ import annotations

from torch import Tensor

from engine.checkpoint.foreign.atss import strip_wrappers

SIGNATURE = (r"((module|_orig_mod)\.)*(backbone|rpn|roi_heads)\.",)


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes of wrappers."""
    return {strip_wrappers(name): tensor for name, tensor in tensors.items()}
