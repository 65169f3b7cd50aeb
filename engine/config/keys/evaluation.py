"""Keys of testing and of test-time augmentation."""

from __future__ import annotations

from engine.config.declaration import MAX_BATCH, MAX_SIZE, MIN_SIZE, key

GROUPS = {"TEST.BBOX_AUG": "Test-time augmentation: detect in resized and mirrored copies of an image and merge."}

# One key after another as in a table, so that a search for a key shows its default too.
# fmt: off
KEYS = [
    key("TEST.IMS_PER_BATCH", 8, "Images per step in testing, over all processes together.", between=(1, MAX_BATCH)),
    key("TEST.DETECTIONS_PER_IMG", 100, "Most detections kept per image, over all classes; 0: no limit.", at_least=0),
    key("TEST.MAX_DETS", 100, "Detections per image and class, those of the highest scores, that AP and AR see; COCO's "
        "figures are those at 100. Raise it with DETECTIONS_PER_IMG where images hold more objects.", ours=True,
        between=(1, 10**6)),
    key("TEST.THRESHOLD_IOU", 0.5, "For the per-class score thresholds, a detection counts as correct from this IoU "
        "on.", ours=True, between=(0, 1)),
    key("TEST.THRESHOLD_BETA", 1.0, "Recall weighs this many times as much as precision in the f-measure that the "
        "thresholds maximise.", ours=True, at_least=0),
    key("TEST.THRESHOLD_RULE", "raw", "raw: thresholds from what `score >= threshold` really gives; interpolated: the "
        "reference's rule, from COCO's interpolated precision at 101 recall points, which is too optimistic.",
        ours=True, words=("raw", "interpolated")),
    key("TEST.RESULT_FORMATS", (), "Further files of the detections in inference/NAME: competition writes result.json, "
        "[{name, category, bbox: [x1, y1, x2, y2], score}, ...]; csv writes result.csv.", ours=True,
        type=tuple[str, ...], words=("competition", "csv"), registry="engine.evaluation.result_files.RESULT_FORMATS"),
    key("TEST.RESULT_MIN_SCORE", 0.0, "Lowest score in the files of RESULT_FORMATS. 0 keeps all detections, which "
        "average precision needs.", ours=True, between=(0, 1)),
    key("TEST.SCORE_VOTING", 0.0, "Sigma of score voting: each detection becomes the mean of the candidates of its "
        "class that overlap it, weighted by score and IoU; 0.025 in the paper, 0: off.", ours=True, between=(0, 100)),
    key("TEST.BBOX_AUG.ENABLED", False, "Turns it on."),
    key("TEST.BBOX_AUG.VOTE", False, "True: suppress and limit each pass to detections, keep those in SCALE_RANGES, "
        "merge them by MERGE_TYPE. False: suppress the candidates of all passes together (plain NMS)."),
    key("TEST.BBOX_AUG.VOTE_TH", 0.66, "Boxes vote together from this IoU on.", between=(0, 1)),
    key("TEST.BBOX_AUG.MERGE_TYPE", "vote", "vote: mean box, largest score; soft-vote: in addition, each voter stays "
        "with a lowered score; nms: plain NMS.", words=("vote", "soft-vote", "nms"),
        registry="engine.layers.voting.MERGERS"),
    key("TEST.BBOX_AUG.H_FLIP", False, "Add a mirrored pass at the plain scale."),
    key("TEST.BBOX_AUG.SCALES", (), "Short sides of the further passes, pixels.", type=tuple[int, ...],
        between=(MIN_SIZE, MAX_SIZE)),
    key("TEST.BBOX_AUG.SCALE_RANGES", (), "With VOTE: for each of SCALES, the (low, high) of the box sizes that are "
        "kept there: sqrt(area) in pixels of the scaled image, both ends excluded; () keeps all.",
        type=tuple[tuple[int, int], ...], between=(-1, MAX_SIZE)),
    key("TEST.BBOX_AUG.MAX_SIZE", 4000, "Limit of the long side of SCALES; with VOTE, scales below 800 use "
        "INPUT.MAX_SIZE_TEST instead.", between=(MIN_SIZE, MAX_SIZE)),
    key("TEST.BBOX_AUG.SCALE_H_FLIP", False, "Add a mirrored pass at each of SCALES."),
]
# fmt: on
