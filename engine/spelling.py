"""Which key, word or file did the user mean? When are two names the same?"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

# Similarities are between 0 and 1. A suggestion below these limits would only confuse.
_SIMILAR_ENOUGH = 0.6
_SIMILAR_ENOUGH_ELSEWHERE = 0.8  # in another group of keys
_SLIP = 0.82  # a letter of four; not `isbbox` for `bbox`
# Tuned on every possible slip in every key (the tests sample them): the right group counts more than the exact name in
# another group.
_SAME_GROUP_BONUS = 0.15
_OTHER_GROUP_PENALTY = 0.06
_ROUNDING = 1e-9


def is_text(value: str) -> bool:
    """Whether text can be written in UTF-8: JSON and pickles may hold halves of characters, such as "\\ud83d"."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def normal_name(name: str) -> str:
    """The form in which names are compared: without blanks at the ends, accents composed (NFC). Case counts.

    Example:
        >>> normal_name("de\\u0301faut ") == normal_name("d\\u00e9faut")
        True
    """
    return unicodedata.normalize("NFC", name).strip()


def is_slip(word: str, meant: str) -> bool:
    """Whether `word` is `meant` with a slip: a letter more, less, wrong or in another place, other case or separators.

    Example:
        >>> [is_slip(word, "bbox") for word in ("bBox", "bbx", "obbx", "box_id")]
        [True, True, True, False]
    """
    squeezed, squeezed_meant = ("".join(filter(str.isalnum, each.lower())) for each in (word, meant))
    if abs(len(squeezed) - len(squeezed_meant)) > len(squeezed_meant) // 2:  # most words; no need to look closer
        return False
    return sorted(squeezed) == sorted(squeezed_meant) or _similarity(squeezed, squeezed_meant) >= _SLIP


def nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """The dotted key most similar to a mistyped or misplaced one, or None when no key is similar enough.

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
        if candidate_group == group:
            bonus = _SAME_GROUP_BONUS + _abbreviation_bonus(name, candidate_name)
            similarity = _similarity(name, candidate_name, _SIMILAR_ENOUGH - bonus - _ROUNDING) + bonus
        else:
            similarity = _similarity(name, candidate_name, _SIMILAR_ENOUGH_ELSEWHERE)
            if similarity < _SIMILAR_ENOUGH_ELSEWHERE:
                continue
            similarity -= _OTHER_GROUP_PENALTY
        if similarity < max(_SIMILAR_ENOUGH, best_rank[0]):
            continue
        is_swapped = sorted(name) == sorted(candidate_name)
        rank = (similarity, is_swapped, _similarity(group, candidate_group))
        if rank > best_rank:
            best, best_rank = candidate, rank
    return best


def nearest_words(word: str, words: Iterable[str], at_most: int = 1) -> list[str]:
    """The allowed words most similar to a mistyped one, best first; upper and lower case count as equal.

    Example:
        >>> nearest_words("soft_vote", ["vote", "soft-vote"])
        ['soft-vote']
    """
    ranked = sorted(((_similarity(word.upper(), each.upper(), _SIMILAR_ENOUGH), each) for each in words), reverse=True)
    return [each for similarity, each in ranked[:at_most] if similarity >= _SIMILAR_ENOUGH]


def did_you_mean(word: str, words: Iterable[str], at_most: int = 1, prefix: str = "") -> str:
    """The end of an error message that suggests the nearest words, each after `prefix`; "" when none is near enough.

    Example:
        >>> did_you_mean("adamw", ["SGD", "Adam", "AdamW"])
        '; did you mean AdamW?'
        >>> did_you_mean("adamw", ["SGD", "Adam", "AdamW"], at_most=2)
        '; did you mean AdamW or Adam?'
    """
    nearest = [f"{prefix}{each}" for each in nearest_words(word, words, at_most)]
    return f"; did you mean {' or '.join(nearest)}?" if nearest else ""


def _similarity(a: str, b: str, least: float = 0.0) -> float:
    """A number in [0, 1]; 0 may stand for any below `least`, which lengths and letters tell in a tenth of the time."""
    total = len(a) + len(b)
    if total and least > 0:
        if 2 * min(len(a), len(b)) / total < least:
            return 0.0
        if 2 * sum(min(a.count(letter), b.count(letter)) for letter in set(a)) / total < least:
            return 0.0
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def _abbreviation_bonus(name: str, candidate: str) -> float:
    """A bonus for a name that is part of the candidate (LR, MIN_SIZE) or extends it (INFERENCE_THRESHOLD)."""
    if name in candidate.split("_") or (len(name) >= 3 and candidate.startswith(name)):
        return 0.15
    return 0.05 if name.startswith(candidate) else 0.0
