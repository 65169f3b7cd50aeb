"""The exponential moving average of the weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from engine.training.loop import Hook, Step


def decay_of(update: int, decay: float) -> float:
    """Decay of the 1-based `update`: small at first, so that the average forgets the random weights it began with.

    It is min(decay, update / (update + 10)), as a mean over about a tenth of the steps done until `decay` is reached.

    Example:
        >>> [round(decay_of(update, 0.99), 2) for update in (1, 10, 2000)]
        [0.09, 0.5, 0.99]
    """
    return min(decay, update / (update + 10))


class EMAHook(Hook):
    """Keeps `model`, a copy of the trained one with averaged parameters and buffers (Polyak & Juditsky, 1992).

    Args:
        trained: the bare detector.
        decay: part of the average that a step leaves as it is, see `decay_of`.
    """

    def __init__(self, trained: nn.Module, decay: float) -> None:
        self.trained, self.decay = trained, decay
        self.averaged = AveragedModel(trained, multi_avg_fn=self._average, use_buffers=True)
        self.averaged.n_averaged.fill_(1)  # else the first update takes the weights after a step for the start
        self.averaged.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The detector with the averaged weights."""
        return self.averaged.module

    @property
    def num_updates(self) -> int:
        return int(self.averaged.n_averaged) - 1

    def restore(self, weights: dict[str, Tensor], num_updates: int) -> None:
        """Go on from the average `weights` after `num_updates` steps."""
        self.model.load_state_dict(weights)
        self.averaged.n_averaged.fill_(num_updates + 1)

    def after_step(self, step: Step) -> None:
        self.averaged.update_parameters(self.trained)

    def _average(self, averages: list[Tensor], values: list[Tensor], update: Tensor) -> None:
        """`averages` and `values` of one type; counters of batches are no quantities to average."""
        decay = decay_of(int(update), self.decay)
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)
