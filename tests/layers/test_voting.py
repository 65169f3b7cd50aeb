from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.layers import voting
from engine.layers.nms import class_nms
from engine.layers.voting import Merged, nms, soft_vote, vote

LAST_PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])
"""Added to a box in the reference's inclusive pixels, it gives the box we store."""
IOU_THRESH, SCORE_THRESH = 0.66, 0.05


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test here runs with and without the compiled loop."""
    if request.param == "compiled" and voting._find_leaders_compiled is None:
        pytest.skip("the extension is not built: python setup.py build_ext --inplace")
    before = voting._find_leaders_compiled
    if request.param == "numpy":
        voting._find_leaders_compiled = None
    yield
    voting._find_leaders_compiled = before


def assert_equal_sets(ours: Merged, theirs: Merged, atol: float = 1e-3) -> None:
    """The same boxes (to `atol` pixels) with the same scores (to `atol` / 100) and labels, in any order."""
    assert len(ours[0]) == len(theirs[0])
    a, b = (
        torch.cat([boxes.double(), 100 * scores[:, None].double(), 1e6 * labels[:, None].double()], dim=1)
        for boxes, scores, labels in (ours, theirs)
    )
    if len(a):
        distances = torch.cdist(a, b, p=float("inf"))
        assert max(distances.amin(0).max(), distances.amin(1).max()) <= atol


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int64)


# -- worked by hand -------------------------------------------------------------------------------------------------

TABLE = [  # x1 y1 x2 y2, score, label
    ([0, 0, 10, 10], 0.75, 0),  # leads the next one: IoU 80 / 100
    ([0, 0, 10, 8], 0.25, 0),
    ([0, 0, 10, 8], 0.50, 1),  # of another class
    ([50, 50, 60, 60], 0.10, 0),  # alone
]
BOXES = torch.tensor([row[0] for row in TABLE], dtype=torch.float32)
SCORES = torch.tensor([row[1] for row in TABLE])
LABELS = torch.tensor([row[2] for row in TABLE])
MEANS = [([0, 0, 10, 9.5], 0.75, 0), ([0, 0, 10, 8], 0.50, 1), ([50, 50, 60, 60], 0.10, 0)]


def test_vote_by_hand() -> None:
    boxes, scores, labels = vote(BOXES, SCORES, LABELS, IOU_THRESH)
    assert boxes.tolist() == [row[0] for row in MEANS]
    assert scores.tolist() == pytest.approx([row[1] for row in MEANS])
    assert labels.tolist() == [row[2] for row in MEANS]
    assert boxes.dtype == scores.dtype == torch.float32 and labels.dtype == torch.int64


def test_soft_vote_by_hand() -> None:
    assert len(soft_vote(BOXES, SCORES, LABELS, IOU_THRESH, score_thresh=0.051)[0]) == 3
    boxes, scores, labels = soft_vote(BOXES, SCORES, LABELS, IOU_THRESH, score_thresh=0.049)
    lowered = ([0, 0, 10, 8], 0.25 * (1 - 0.8), 0)
    assert boxes.tolist() == [*[row[0] for row in MEANS], lowered[0]]
    assert scores.tolist() == pytest.approx([*[row[1] for row in MEANS], lowered[1]])
    assert labels.tolist() == [0, 1, 0, 0]


def test_nms_by_hand() -> None:
    boxes, scores, _ = nms(BOXES, SCORES, LABELS, 0.6)
    assert boxes.tolist() == BOXES[[0, 2, 3]].tolist()
    assert scores.tolist() == pytest.approx([0.75, 0.5, 0.1])


PARTS = torch.tensor([[0.0, 0, 10, 10], [2, 2, 6, 6], [8, 0, 12, 10], [9, 0, 13, 10], [0, 0, 10, 10]])
"""A box; a part of it; half in it; a quarter in it; the same again."""


@pytest.mark.parametrize(
    ("thresh", "kept"),
    [(0.2, [0]), (0.3, [0, 3]), (0.5, [0, 3]), (0.6, [0, 2]), (1.0, [0, 2, 3])],  # 2 and 3 share 30 of 40
)
def test_nms_over_the_smaller_by_hand(thresh: float, kept: list[int]) -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    boxes, found, labels = nms(PARTS, scores, zeros(5), thresh, over_smaller=True)
    assert found.tolist() == scores[kept].tolist() and boxes.tolist() == PARTS[kept].tolist()
    assert boxes.dtype == torch.float32 and labels.dtype == torch.int64
    assert len(nms(PARTS, scores, torch.arange(5), thresh, over_smaller=True)[0]) == 5  # classes do not meet


def test_votes_over_the_smaller_by_hand() -> None:
    """The part of 16 pixels joins the box, and both scores weigh; soft-vote keeps what overlaps by half."""
    scores = torch.tensor([0.6, 0.2])
    boxes, found, _ = vote(PARTS[:2], scores, zeros(2), 0.5, over_smaller=True)
    assert boxes.tolist() == [[0.5, 0.5, 9, 9]] and found.tolist() == pytest.approx([0.6])
    assert len(vote(PARTS[:2], scores, zeros(2), 0.5)[0]) == 2  # their IoU is 0.16
    boxes, found, _ = soft_vote(PARTS[[0, 2]], scores, zeros(2), 0.5, 0.05, over_smaller=True)
    assert found.tolist() == pytest.approx([0.6, 0.1]) and boxes[1].tolist() == PARTS[2].tolist()


def test_leaders_take_in_order_of_score() -> None:
    """b overlaps a and c enough, a and c do not overlap enough: the best decides who is grouped."""
    a, b, c = [0.0, 0, 10, 10], [2.0, 0, 12, 10], [4.0, 0, 14, 10]  # IoU(a, b) = IoU(b, c) = 2/3, IoU(a, c) = 6/14
    boxes = torch.tensor([a, b, c])
    assert len(vote(boxes, torch.tensor([0.3, 0.9, 0.2]), zeros(3), 0.6)[0]) == 1
    assert len(vote(boxes, torch.tensor([0.9, 0.3, 0.2]), zeros(3), 0.6)[0]) == 2


def test_the_threshold_is_included() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5]])  # IoU 1/2
    assert len(vote(boxes, torch.tensor([0.9, 0.3]), zeros(2), 0.5)[0]) == 1
    assert len(vote(boxes, torch.tensor([0.9, 0.3]), zeros(2), 0.5 + 1e-9)[0]) == 2


def test_threshold_zero_joins_a_class_and_one_only_equals() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 10], [90.0, 90, 95, 95]])
    scores = torch.tensor([0.9, 0.3, 0.2])
    assert len(vote(boxes, scores, zeros(3), 0.0)[0]) == 1
    assert len(vote(boxes, scores, zeros(3), 1.0)[0]) == 2


def test_nothing_gives_nothing() -> None:
    for merged in (
        vote(torch.zeros(0, 4), torch.zeros(0), zeros(0), 0.5),
        soft_vote(*empty(), 0.5, 0.05),
        nms(*empty(), 0.5),
    ):
        assert [tuple(tensor.shape) for tensor in merged] == [(0, 4), (0,), (0,)]


def empty() -> Merged:
    return torch.zeros(0, 4), torch.zeros(0), zeros(0)


# -- where the reference is not sane ---------------------------------------------------------------------------------


def test_a_single_box_stays() -> None:
    """The reference loses the only box of a class."""
    box, score = torch.tensor([[1.1, 2.2, 3.3, 4.4]]), torch.tensor([0.7])
    for boxes, scores, labels in (vote(box, score, zeros(1), 0.66), soft_vote(box, score, zeros(1), 0.66, 0.05)):
        assert torch.equal(boxes, box) and torch.equal(scores, score) and labels.tolist() == [0]


def test_scores_of_zero_weigh_alike() -> None:
    """The reference divides 0 by 0: NaN boxes."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 9]])
    merged, scores, _ = vote(boxes, torch.zeros(2), zeros(2), 0.5)
    assert merged.tolist() == [[0.0, 0.0, 10.0, 9.5]] and scores.tolist() == [0.0]
    assert len(soft_vote(boxes, torch.zeros(2), zeros(2), 0.5, score_thresh=0.0)[0]) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_dropped(bad: float) -> None:
    """The reference never ends: such a box does not overlap itself, so it is never taken out."""
    for place in range(5):
        table = torch.tensor([[0.0, 0, 10, 10, 0.9], [0.0, 0, 10, 9, 0.8], [0.0, 0, 10, 10, 0.7]])
        table[1, place] = bad
        for merged in (
            vote(table[:, :4], table[:, 4], zeros(3), 0.5),
            soft_vote(table[:, :4], table[:, 4], zeros(3), 0.5, 0.05),
            nms(table[:, :4], table[:, 4], zeros(3), 0.5),
        ):
            assert merged[0].tolist() == [[0.0, 0.0, 10.0, 10.0]]
            assert merged[1].tolist() == pytest.approx([0.9])


def test_boxes_without_extent_stay_alone() -> None:
    """The reference never ends on an inverted box."""
    boxes = torch.tensor([[10.0, 10, 0, 0], [5.0, 5, 5, 5], [5.0, 5, 5, 5], [0.0, 0, 10, 10]])
    merged, _, _ = vote(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), zeros(4), 0.5)
    assert torch.equal(merged, boxes)


# -- properties -----------------------------------------------------------------------------------------------------

NUMBERS = st.integers(0, 24).map(lambda n: n / 2)
CANDIDATES = st.lists(
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 8).map(lambda n: n / 8), st.integers(0, 2)),
    max_size=24,
)
THRESHOLDS = st.sampled_from([0.0, 0.1, 0.5, 0.66, 1.0])


def tensors(table: list[tuple]) -> Merged:
    """(x1, y1, width, height, score, label) -> boxes, scores, labels."""
    values = torch.tensor(table, dtype=torch.float32).reshape(-1, 6)
    return torch.cat([values[:, :2], values[:, :2] + values[:, 2:4]], dim=1), values[:, 4], values[:, 5].long()


def plain_vote(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, iou_thresh: float) -> Merged:
    """The definition, box by box."""
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], labels[i], boxes[i].tolist()))
    merged = []
    while left:
        best, group, rest = left[0], [left[0]], []
        for i in left[1:]:
            same = labels[i] == labels[best] and iou(boxes[i], boxes[best]) >= iou_thresh
            (group if same else rest).append(i)
        weights = scores[group].double()
        weights = weights if weights.sum() > 0 else torch.ones_like(weights)
        merged.append(((boxes[group].double() * weights[:, None]).sum(0) / weights.sum(), scores[best], labels[best]))
        left = rest
    if not merged:
        return empty()
    boxes, scores, labels = zip(*merged, strict=True)
    return torch.stack(boxes).float(), torch.stack(scores), torch.stack(labels)


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    overlap = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod().item()
    union = ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()).item() - overlap
    return overlap / union if overlap > 0 else 0.0


@settings(deadline=None, max_examples=60)
@given(CANDIDATES, THRESHOLDS)
def test_vote_is_its_definition(table: list[tuple], iou_thresh: float) -> None:
    assert_equal_sets(vote(*tensors(table), iou_thresh), plain_vote(*tensors(table), iou_thresh), atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(CANDIDATES, THRESHOLDS, st.randoms(use_true_random=False))
def test_order_does_not_matter(table: list[tuple], iou_thresh: float, random: object) -> None:
    shuffled = list(table)
    random.shuffle(shuffled)
    for merge in (lambda *a: vote(*a, iou_thresh), lambda *a: soft_vote(*a, iou_thresh, SCORE_THRESH)):
        for a, b in zip(merge(*tensors(table)), merge(*tensors(shuffled)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(CANDIDATES, THRESHOLDS, st.integers(-64, 64))
def test_translation(table: list[tuple], iou_thresh: float, shift: int) -> None:
    boxes, scores, labels = tensors(table)
    here = soft_vote(boxes, scores, labels, iou_thresh, SCORE_THRESH)
    there = soft_vote(boxes + shift, scores, labels, iou_thresh, SCORE_THRESH)
    assert_equal_sets((there[0] - shift, *there[1:]), here, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(CANDIDATES, THRESHOLDS)
def test_classes_do_not_meet(table: list[tuple], iou_thresh: float) -> None:
    boxes, scores, labels = tensors(table)
    apart = [
        soft_vote(boxes[labels == k], scores[labels == k], labels[labels == k], iou_thresh, 0.05) for k in range(3)
    ]
    joined = tuple(torch.cat(parts) for parts in zip(*apart, strict=True))
    assert_equal_sets(soft_vote(boxes, scores, labels, iou_thresh, 0.05), joined, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(CANDIDATES, THRESHOLDS)
def test_mean_boxes_lie_within_and_scores_fall(table: list[tuple], iou_thresh: float) -> None:
    boxes, scores, labels = tensors(table)
    merged, merged_scores, merged_labels = vote(boxes, scores, labels, iou_thresh)
    assert (merged_scores.diff() <= 0).all()
    for label in labels.unique():
        ours, theirs = merged[merged_labels == label], boxes[labels == label]
        assert (ours >= theirs.amin(0) - 1e-4).all() and (ours <= theirs.amax(0) + 1e-4).all()
        assert merged_scores[merged_labels == label].max() == scores[labels == label].max()


@settings(deadline=None, max_examples=60)
@given(CANDIDATES, THRESHOLDS)
def test_leaders_over_the_smaller_are_their_definition(table: list[tuple], thresh: float) -> None:
    boxes, scores, labels = tensors(table)
    arrays = boxes.double().numpy(), scores.double().numpy(), labels.numpy()
    leaders, shares = voting.find_leaders(*arrays, thresh, over_smaller=True)
    is_leader = leaders == np.arange(len(leaders))
    assert (leaders[leaders] == leaders).all() and (shares[is_leader] == 1).all()
    for k, leader in enumerate(leaders.tolist()):
        rivals = [j for j in np.flatnonzero(is_leader) if labels[j] == labels[k] and j != k]
        better = [j for j in rivals if scores[j] > scores[k] and over_smaller(boxes[j], boxes[k]) >= thresh]
        if leader == k:
            assert not better
        else:
            assert scores[leader] >= max([scores[k], *(scores[j] for j in better)])
            assert shares[k] == pytest.approx(over_smaller(boxes[leader], boxes[k])) and shares[k] >= thresh


def over_smaller(a: torch.Tensor, b: torch.Tensor) -> float:
    """Intersection over the smaller area of two boxes; 0 where one has none."""
    low, high = torch.maximum(a[:2], b[:2]).double(), torch.minimum(a[2:], b[2:]).double()
    inter = (high - low).clamp(min=0).prod().item()
    areas = [(box[2:] - box[:2]).double().prod().item() for box in (a, b)]
    return inter / min(areas) if inter else 0.0


def test_many_boxes_over_the_smaller_are_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The windows leave nothing out, a huge box among small ones included."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 400, (3000, 2))
    corners = np.concatenate([corners, corners + random.uniform(2, 20, (3000, 2))], axis=1)
    corners[7] = [0, 0, 300, 300]
    arrays = corners, random.random(3000), random.integers(0, 3, 3000)
    ours = voting.find_leaders(*arrays, 0.4, over_smaller=True)
    everything = np.full((3000, 2), -np.inf), np.full((3000, 2), np.inf)
    monkeypatch.setattr(voting, "_reach_of_any", lambda *_: everything)
    for a, b in zip(ours, voting.find_leaders(*arrays, 0.4, over_smaller=True), strict=True):
        assert (a == b).all()


def test_the_compiled_loop_equals_numpy() -> None:
    if voting._find_leaders_compiled is None:
        pytest.skip("runs once, with the compiled loop")
    random = np.random.default_rng(0)
    starts, sides = random.uniform(0, 300, (3000, 2)), random.uniform(-5, 120, (3000, 2))
    corners = np.concatenate([starts, starts + sides], axis=1).round(1)
    scores, classes = random.integers(0, 50, 3000) / 50, random.integers(0, 7, 3000)
    for iou_thresh in (0.0, 1e-9, 0.3, 0.66, 1.0):
        leaders, ious = voting.find_leaders(corners, scores, classes, iou_thresh)
        compiled, voting._find_leaders_compiled = voting._find_leaders_compiled, None
        plain_leaders, plain_ious = voting.find_leaders(corners, scores, classes, iou_thresh)
        voting._find_leaders_compiled = compiled
        assert np.array_equal(leaders, plain_leaders) and np.array_equal(ious, plain_ious)


def test_nms_of_many_boxes_is_that_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    starts = torch.rand(600, 2, generator=random) * 200
    boxes = torch.cat([starts, starts + 10 + torch.rand(600, 2, generator=random) * 60], dim=1)
    scores, labels = torch.randint(40, (600,), generator=random) / 40, torch.randint(9, (600,), generator=random)
    together = class_nms(boxes, scores, labels, 0.5)
    monkeypatch.setattr("engine.layers.nms.MANY_BOXES_CPU", 10)
    assert torch.equal(class_nms(boxes, scores, labels, 0.5), together)


# -- golden ---------------------------------------------------------------------------------------------------------


def test_golden_functions(golden_dir: Path) -> None:
    golden = torch.load(golden_dir / "atss" / "vote_functions.pth", weights_only=True)
    assert len(golden["cases"]) == 50
    for case in golden["cases"]:
        arguments = (case["boxes"] + LAST_PIXEL, case["scores"], zeros(case["n"]), case["vote_thresh"])
        for name, ours in (("vote", vote(*arguments)), ("soft", soft_vote(*arguments, golden["soft_inference_th"]))):
            if case["n"] == 1:  # the reference's defect: a single box is lost
                assert torch.equal(ours[0], arguments[0]) and torch.equal(ours[1], case["scores"])
                continue
            boxes, scores = case[f"{name}_boxes"][:, :4] + LAST_PIXEL, case[f"{name}_scores"]
            assert_equal_sets(ours, (boxes, scores, zeros(len(scores))))


MERGES = {
    "vote": lambda *a: vote(*a, IOU_THRESH),
    "soft-vote": lambda *a: soft_vote(*a, IOU_THRESH, SCORE_THRESH),
    "nms": lambda *a: nms(*a, 0.6),
}


def test_golden_merges(golden_dir: Path) -> None:
    golden = torch.load(golden_dir / "atss" / "tta.pth", weights_only=True)
    num_merges = 0
    for run in golden["runs"]:
        for candidates, result in zip(run["merge_input"], run["result"] if run["merge_input"] else [], strict=True):
            labels = candidates["labels"] - 1
            ours = MERGES[run["MERGE_TYPE"]](candidates["boxes"] + LAST_PIXEL, candidates["scores"], labels)
            is_kept = class_of_more_than_one(labels, ours[2], run["MERGE_TYPE"])
            ours = tuple(tensor[is_kept] for tensor in ours)
            theirs = (result["boxes"] + LAST_PIXEL, result["scores"], result["labels"] - 1)
            if run["name"] == "soft-vote-limit50":  # the reference's defect: cut at PRE_NMS_TOP_N (50)
                ours = tuple(tensor[:50] for tensor in ours)
            assert_equal_sets(ours, theirs)
            num_merges += 1
    assert num_merges == 10  # the run without VOTE records no input of its merge


def class_of_more_than_one(labels: torch.Tensor, merged_labels: torch.Tensor, merge_type: str) -> torch.Tensor:
    """Mask without the classes of one candidate, which the reference's voting loses (its defect)."""
    if merge_type == "nms":
        return torch.ones_like(merged_labels, dtype=torch.bool)
    return labels.bincount(minlength=10)[merged_labels] > 1
