"""The exponential moving average of the weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from engine.training.loop import Hook, Step


def decay_of(update: int, decay: float) -> float:
    """Decay of the 1-based `update`: small at first, so that the average forgets the initial random weights.

    It is min(decay, update / (update + 10)). Until `decay` is reached, this averages about a tenth of the steps so far.

    Example:
        >>> [round(decay_of(update, 0.99), 2) for update in (1, 10, 2000)]
        [0.09, 0.5, 0.99]
    """
    return min(decay, update / (update + 10))


class EMAHook(Hook):
    """Maintains `model`, a copy of `trained` with averaged parameters and buffers (Polyak & Juditsky, 1992).

    `trained` is the detector without wrappers. `decay` is the share of the old average in each update, see `decay_of`.
    """

    def __init__(self, trained: nn.Module, decay: float) -> None:
        self.trained, self.decay = trained, decay
        self.averaged = AveragedModel(trained, multi_avg_fn=self._average, use_buffers=True)
        self.averaged.n_averaged.fill_(1)  # otherwise the first update would only copy the weights
        self.averaged.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The detector with the averaged weights."""
        return self.averaged.module

    @property
    def num_updates(self) -> int:
        return int(self.averaged.n_averaged) - 1

    def restore(self, weights: dict[str, Tensor], num_updates: int) -> None:
        """Continue from the average `weights` after `num_updates` steps."""
        self.model.load_state_dict(weights)
        self.averaged.n_averaged.fill_(num_updates + 1)

    def after_step(self, step: Step) -> None:
        self.averaged.update_parameters(self.trained)

    def _average(self, averages: list[Tensor], values: list[Tensor], update: Tensor) -> None:
        """Update `averages` with `values`, all of one dtype; batch counters are copied."""
        decay = decay_of(int(update), self.decay)
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)
