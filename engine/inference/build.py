"""cfg -> trained model, Predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from engine.build import import_user_modules, prepare
from engine.checkpoint import WeightFile, load_weights, read_weights
from engine.config import load_config
from engine.data.build import build_test_transform
from engine.inference.predictor import ImagePredictor
from engine.modeling.build import build_device, build_model, num_classes, pixel_of
from engine.modeling.detector import GeneralizedRCNN

DEFAULT_THRESHOLD = 0.3
"""For a class without a stored threshold."""


def build_trained_model(cfg: CfgNode) -> GeneralizedRCNN:
    """The model of `cfg` with the weights and class names of `MODEL.WEIGHT`, in a process made ready for a run."""
    prepare(cfg)
    return _load_trained(cfg, read_weights(cfg.MODEL.WEIGHT))


def _load_trained(cfg: CfgNode, file: WeightFile) -> GeneralizedRCNN:
    model = build_model(cfg, file.class_names or ())
    load_weights(model, file)
    return model.eval()


class Predictor(ImagePredictor):
    """`Predictor(config, weights)(image) -> Detections`.

    The class names and score thresholds stored in the checkpoint are used.

    Args:
        config: a path of a YAML file, or a configuration.
        weights: whatever `MODEL.WEIGHT` takes.
        threshold: one score threshold for all classes instead of the stored ones.

    Raises:
        InputError: configuration or weights that cannot be used.

    Attributes:
        class_names: names of labels 0..K-1 ("class 1", ... where the checkpoint has none).
        stored_thresholds: score threshold by class name, as far as the checkpoint has them.
    """

    def __init__(self, config: CfgNode | str | Path, weights: str | Path, threshold: float | None = None) -> None:
        cfg = config if isinstance(config, CfgNode) else load_config(config)
        import_user_modules(cfg)
        file = read_weights(str(weights))
        self.stored_thresholds = usable_thresholds(file.thresholds)
        super().__init__(
            _load_trained(cfg, file),
            build_test_transform(cfg),
            build_device(cfg),
            file.class_names or [f"class {k + 1}" for k in range(num_classes(cfg))],
            self.stored_thresholds if threshold is None else {},
            DEFAULT_THRESHOLD if threshold is None else threshold,
            cfg.DATALOADER.SIZE_DIVISIBILITY,
            pixel_of(cfg),
        )


def usable_thresholds(thresholds: dict[str, Any] | None) -> dict[str, float]:
    """Score threshold by class name from the object of `thresholds.json`; classes that have none are left out."""
    classes = (thresholds or {}).get("classes", {})
    return {name: entry["threshold"] for name, entry in classes.items() if entry["threshold"] is not None}
