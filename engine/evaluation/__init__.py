"""Matches of detections with ground truth, the figures computed from them, and the tables that show these."""

from engine.evaluation.coco import coco_metrics
from engine.evaluation.matches import Matches, match_detections
from engine.evaluation.results import read_results, read_skipped_images, to_coco_results, without_images
from engine.evaluation.tables import metrics_table, thresholds_table
from engine.evaluation.thresholds import fmeasure_thresholds

__all__ = [
    "Matches",
    "coco_metrics",
    "fmeasure_thresholds",
    "match_detections",
    "metrics_table",
    "read_results",
    "read_skipped_images",
    "thresholds_table",
    "to_coco_results",
    "without_images",
]
