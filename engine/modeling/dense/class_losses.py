"""Class losses of dense stages by name, of hard labels (a positive learns 1) and of soft ones (it learns its quality).

Those of soft labels take `qualities`, see `DenseStage.class_loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from engine.layers.losses import focal_loss_sum
from engine.layers.quality_losses import quality_focal_loss_sum, varifocal_loss_sum
from engine.registry import Registry

DENSE_CLS_LOSSES = Registry("DENSE_CLS_LOSSES")
"""(alpha: float, gamma: float) -> `DenseParts.cls_loss`, by the name in `MODEL.ATSS.CLS_LOSS` and its like."""


@DENSE_CLS_LOSSES.register("focal")
def focal(alpha: float, gamma: float) -> Callable[..., Tensor]:
    """Hard labels (Lin et al., 2017)."""
    return partial(focal_loss_sum, alpha=alpha, gamma=gamma)


@DENSE_CLS_LOSSES.register("quality_focal")
def quality_focal(alpha: float, gamma: float) -> Callable[..., Tensor]:
    """Soft labels (Li et al., 2020); it has no alpha."""
    return partial(quality_focal_loss_sum, gamma=gamma)


@DENSE_CLS_LOSSES.register("varifocal")
def varifocal(alpha: float, gamma: float) -> Callable[..., Tensor]:
    """Soft labels whose positives are not faded out (Zhang et al., 2021); negatives weigh 1 - alpha, as in `focal`."""
    return partial(varifocal_loss_sum, alpha=1 - alpha, gamma=gamma)
