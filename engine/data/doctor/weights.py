"""The weights that training starts from, against the classes and the normalisation of the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.findings import Finding, declare
from engine.errors import listed
from engine.spelling import normal_name

UNUSABLE = declare(
    "WEIGHTS_UNUSABLE",
    "error",
    "The file of MODEL.WEIGHT is missing, damaged, or of another architecture.",
    "The message says what to do; MODEL.WEIGHT '' trains from scratch.",
)
REMOTE = declare(
    "WEIGHTS_REMOTE",
    "note",
    "The weights are not on this machine and were not looked at: the doctor uses no network.",
    "Training downloads them; on a machine without a network put them at the path in the message first.",
)
CLASSES = declare(
    "WEIGHTS_CLASSES",
    "warning",
    "The weights were trained on other classes than those of the data. Common classes are taken by name, others start "
    "anew.",
    "If the classes mean the same, spell them alike.",
)
CONVENTIONS = declare(
    "WEIGHTS_CONVENTIONS",
    "warning",
    "The weights were trained with another mean, standard deviation, channel order or convention of boxes.",
    "Set the keys that the message names.",
)
PARTLY = declare(
    "WEIGHTS_PARTLY",
    "warning",
    "Some tensors of the weights do not fit the model, which keeps its random values there.",
    "Use weights of this architecture, or correct the keys of MODEL; tools/convert_weights.py shows the table.",
)


@CHECKS.register("weights")
def check_weights(case: Case) -> Iterator[Finding]:
    """What the file of `MODEL.WEIGHT` says, if there is one."""
    facts = case.weights
    if facts is None:
        return
    if facts.is_remote:
        yield REMOTE.finding(facts.fault or f"{facts.source} is not in the cache")
        return
    if facts.fault:
        yield UNUSABLE.finding(facts.fault)
        return
    if facts.unmet:
        yield CONVENTIONS.finding(f"{facts.source} was trained with {facts.unmet}")
    if facts.mismatch:
        yield PARTLY.finding(facts.mismatch)
    train = case.having("train")
    if facts.class_names and train:
        theirs, ours = ([*map(normal_name, names)] for names in (facts.class_names, train[0].class_names))
        if theirs != ours:
            new = [name for name in ours if name not in theirs]
            lost = [name for name in theirs if name not in ours]
            parts = [f"new: {listed(new[:5])}"] * bool(new) + [f"not used: {listed(lost[:5])}"] * bool(lost)
            how = "; ".join(parts) or "in another order"
            message = f"{facts.source} has {len(theirs)} classes, the data {len(ours)}; {how}"
            yield CLASSES.finding(message, max(len(new), len(lost), 1))
