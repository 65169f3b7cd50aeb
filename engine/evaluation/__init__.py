"""COCO figures, f-measure thresholds and the tables that show them."""

from engine.evaluation.coco import coco_metrics
from engine.evaluation.results import read_results, read_skipped_images, to_coco_results, without_images
from engine.evaluation.tables import metrics_table, thresholds_table
from engine.evaluation.thresholds import fmeasure_thresholds

__all__ = [
    "coco_metrics",
    "fmeasure_thresholds",
    "metrics_table",
    "read_results",
    "read_skipped_images",
    "thresholds_table",
    "to_coco_results",
    "without_images",
]
