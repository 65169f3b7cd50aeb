"""The plan of the training against the size of the data: learning rate, batch, length, schedule."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.doctor.case import CHECKS, Case, Plan
from engine.data.doctor.findings import Finding, declare

_SGD_RATE = (0.00002, 0.005)  # per image of the batch; the published models have 0.000625 (dense) and 0.00125
_ADAM_RATE = (1e-6, 0.002)  # per step
_FEW_EPOCHS, _MANY_EPOCHS = 3, 1000

RATE = declare(
    "RATE_PER_BATCH",
    "warning",
    "The learning rate is out of proportion to the batch: usual are 0.01 to 0.02 for 16 images with SGD, 0.0001 to"
    " 0.001 with Adam and AdamW.",
    "Scale SOLVER.BASE_LR in proportion to SOLVER.IMS_PER_BATCH, or set SOLVER.REFERENCE_BATCH.",
)
BATCH = declare(
    "BATCH_LARGER_THAN_DATA",
    "warning",
    "A step has more images than there are: images repeat within a step.",
    "Lower SOLVER.IMS_PER_BATCH.",
)
SHORT = declare(
    "SCHEDULE_SHORT",
    "note",
    f"The training is shorter than {_FEW_EPOCHS} passes over the images. A warning if it is shorter than one.",
    "Raise SOLVER.MAX_ITER, or set SOLVER.MAX_EPOCH; 12 to 100 passes are usual.",
)
LONG = declare(
    "SCHEDULE_LONG",
    "warning",
    f"The training is longer than {_MANY_EPOCHS} passes over the images.",
    "Lower SOLVER.MAX_ITER (it may be meant for another data set), or set SOLVER.MAX_EPOCH.",
)
NO_DROP = declare(
    "SCHEDULE_NO_DROP",
    "warning",
    "SOLVER.STEPS lie beyond the end of the training, so the learning rate never drops.",
    "Set SOLVER.STEPS to about 2/3 and 8/9 of SOLVER.MAX_ITER, or another SOLVER.SCHEDULE.",
)
WARMUP = declare(
    "SCHEDULE_WARMUP",
    "warning",
    "The warm-up takes more than half of the training.",
    "Lower SOLVER.WARMUP_ITERS.",
)


@CHECKS.register("plan")
def check_plan(case: Case) -> Iterator[Finding]:
    """The training sets against the plan."""
    plan, images = case.plan, sum(each.num_images for each in case.having("train"))
    if plan is None or not plan.max_iter:
        return
    images = case.samples.count if case.samples else images
    yield from _rate(plan)
    if plan.last_drop is not None and plan.last_drop >= plan.max_iter:
        yield NO_DROP.finding(f"SOLVER.STEPS begin at {plan.last_drop}, but the training ends at {plan.max_iter}")
    if plan.warmup > plan.max_iter / 2:
        yield WARMUP.finding(f"SOLVER.WARMUP_ITERS is {plan.warmup}, the training has {plan.max_iter} iterations")
    if not images:
        return
    if plan.batch > images:
        yield BATCH.finding(f"SOLVER.IMS_PER_BATCH is {plan.batch}, but there are {images} training images")
    epochs = plan.max_iter * plan.batch / images
    length = f"{plan.max_iter} iterations of {plan.batch} images are {epochs:.3g} passes over {images} images"
    if epochs < _FEW_EPOCHS:
        yield SHORT.finding(length, severity="warning" if epochs < 1 else "")
    elif epochs > _MANY_EPOCHS:
        yield LONG.finding(length)


def _rate(plan: Plan) -> Iterator[Finding]:
    if plan.optimizer == "SGD":
        (low, high), rate, per = _SGD_RATE, plan.base_lr / plan.batch, " per image"
    elif plan.optimizer in ("Adam", "AdamW", "NAdam", "RAdam"):
        (low, high), rate, per = _ADAM_RATE, plan.base_lr, ""
    else:
        return
    if rate > 0 and not low <= rate <= high:
        word = "high" if rate > high else "low"
        message = (
            f"SOLVER.BASE_LR {plan.base_lr:g} is very {word} for {plan.optimizer} with batches of {plan.batch} images "
            f"({rate:.2g}{per}; {low:g} to {high:g} are usual)"
        )
        yield RATE.finding(message)
