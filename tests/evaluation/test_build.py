from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from engine.config import get_cfg
from engine.errors import InputError
from engine.evaluation.build import evaluate


def test_a_model_of_other_classes_that_have_no_names(tmp_path: Path) -> None:
    """Weights of the reference know no names: only the number of classes can tell that they are of another data set."""
    images = [{"id": 1, "file_name": "a.png"}]
    categories = [{"id": 1, "name": "hole"}, {"id": 2, "name": "stain"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "categories": categories}))
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.ATSS_ON", True, "MODEL.RPN_ONLY", True])
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "R-18-FPN-RETINANET", "DATALOADER.NUM_WORKERS", 0])
    cfg.DATASETS.ROOT, cfg.DATASETS.TEST = str(tmp_path), ("mine",)
    cfg.DATASETS.CATALOG.mine = {"img_dir": ".", "ann_file": "a.json"}
    model = nn.Module()
    model.class_names = []
    with pytest.raises(InputError, match="mine has 2 classes, but the model has 80, which its weights do not name"):
        evaluate(cfg, model)
