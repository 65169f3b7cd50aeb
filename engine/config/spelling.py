"""Which key, word or file did they mean?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Likenesses run from 0 to 1. Below these, within the group and elsewhere, a suggestion puzzles.
_LIKE_ENOUGH = 0.6
_LIKE_ENOUGH_ELSEWHERE = 0.8
# Tuned on every single slip in every key (the tests repeat it): the right group counts more than
# the exact name in another one.
_SAME_GROUP_BONUS = 0.15
_ELSEWHERE_MALUS = 0.06


def nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """The dotted key most like a mistyped or misplaced one, or None when none is.

    A slip within the right group counts most, then the same name in another group.

    Example:
        >>> nearest_key("MODEL.ATSS.TOP_K", ["MODEL.ATSS.TOPK", "MODEL.ATSS.NMS_TH"])
        'MODEL.ATSS.TOPK'
        >>> nearest_key("SOLVER.USE_C5", ["SOLVER.STEPS", "MODEL.RETINANET.USE_C5"])
        'MODEL.RETINANET.USE_C5'
    """
    group, _, name = key.upper().rpartition(".")
    best, best_rank = None, (0.0, False, 0.0)
    for candidate in keys:
        candidate_group, _, candidate_name = candidate.upper().rpartition(".")
        likeness = _likeness(name, candidate_name)
        if candidate_group == group:
            likeness += _SAME_GROUP_BONUS + _shortened(name, candidate_name)
        elif likeness < _LIKE_ENOUGH_ELSEWHERE:
            continue
        else:
            likeness -= _ELSEWHERE_MALUS
        is_swapped = sorted(name) == sorted(candidate_name)
        rank = (likeness, is_swapped, _likeness(group, candidate_group))
        if likeness >= _LIKE_ENOUGH and rank > best_rank:
            best, best_rank = candidate, rank
    return best


def nearest_word(word: str, words: Sequence[str]) -> str | None:
    """The allowed word most like a mistyped one, upper and lower case alike, or None.

    Example:
        >>> nearest_word("soft_vote", ["vote", "soft-vote"])
        'soft-vote'
    """
    likeness, best = max((_likeness(word.upper(), each.upper()), each) for each in words)
    return best if likeness >= _LIKE_ENOUGH else None


def _likeness(a: str, b: str) -> float:
    if a == b:
        return 1.0
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def _shortened(name: str, candidate: str) -> float:
    """A bonus for a part of the name (LR, MIN_SIZE) or a longer form (INFERENCE_THRESHOLD)."""
    if name in candidate.split("_") or (len(name) >= 3 and candidate.startswith(name)):
        return 0.15
    return 0.05 if name.startswith(candidate) else 0.0
