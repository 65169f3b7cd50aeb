"""Time per image of a detector in torch and of the files exported from it, side by side, and the AP of each.

    python benchmarks/export.py --size 480 640
    python benchmarks/export.py --trained configs/bccd/atss_R_18_bccd.yaml outputs/bccd/model_final.pth --images 50

All forms of a detector take turns on one image, from bytes to detections, on one thread, so that whatever else the
machine does hits all of them; the factor over plain torch is the median of those of the turns. The detectors are ATSS
R-18, ATSS R-50 and Cascade R-50 with random weights (they cost the same; int8 is calibrated on noise), or those of
`--trained`, whose int8 is calibrated on DATASETS.TRAIN, and which have an AP on the first images of DATASETS.TEST.

The exit code is 1 if a target is missed: OpenVINO in bf16 (where the processor has it) 5 times as fast as plain torch,
in int8 8 times; int8 within 0.01 AP.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx
import torch
from tabulate import tabulate
from yacs.config import CfgNode

from engine.assembly.calibration import calibration_samples
from engine.assembly.convention import build_convention
from engine.assembly.detector import Predictor, build_normalize, build_trained_model
from engine.assembly.export import build_graph
from engine.assembly.export_check import ExportCheck
from engine.assembly.model import build_model
from engine.config import load_config
from engine.device import is_native
from engine.export.onnx_writer import to_onnx
from engine.export.openvino import convert, keep_regions_exact, save
from engine.export.precision import INFERENCE_PRECISION
from engine.export.quantize import quantize_onnx, quantize_openvino
from engine.layers.folding import fold_norms
from engine.modeling.detector import GeneralizedRCNN
from engine.runtime.card import CARD_KEY, FixedShape, ImageRule, ModelCard
from engine.runtime.detector import Detector
from engine.runtime.networks import open_network

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RANDOM = (
    CONFIGS / "bccd" / "atss_R_18_bccd.yaml",
    CONFIGS / "atss" / "atss_R_50_FPN_1x.yaml",
    CONFIGS / "cascade" / "cascade_R_50_FPN_1x.yaml",
)
PLAIN_KEYS = ("MODEL.DEVICE", "cpu", "MODEL.CHANNELS_LAST", "False")
NUM_CLASSES = 3
PLAIN, FAST = "torch fp32", "torch fast"
ORT = "ONNX Runtime"
FASTER = {"OpenVINO bf16": 5.0, "OpenVINO int8": 8.0}
LARGEST_DROP = 0.01
CPU = torch.device("cpu")

Call = Callable[[], object]


@dataclass
class Row:
    """What was measured of one form of a detector; `ap` is None without trained weights."""

    detector: str
    form: str
    milliseconds: float
    faster: float
    ap: float | None = None

    def missed(self, ap_of_torch: float | None) -> list[str]:
        """The targets that it misses."""
        least = FASTER.get(self.form, 0.0)
        is_checked = self.form != "OpenVINO bf16" or is_native(CPU, torch.bfloat16)
        faults = [f"{self.faster:.1f} times as fast, not {least:g}"] if is_checked and self.faster < least else []
        if self.form.endswith("int8") and self.ap is not None and ap_of_torch - self.ap > LARGEST_DROP:
            faults.append(f"AP {self.ap:.4f} of {ap_of_torch:.4f}")
        return [f"{self.detector}, {self.form}: {fault}" for fault in faults]


@dataclass
class Case:
    """A detector to be measured."""

    name: str
    cfg: CfgNode
    model: GeneralizedRCNN
    weights: str = ""
    files: dict[str, Path] = field(default_factory=dict)

    def write_files(self, folder: Path, size: tuple[int, int]) -> None:
        """The exported files, into `folder`, all from one ONNX network."""
        rule = ImageRule(
            self.cfg.INPUT.MIN_SIZE_TEST, self.cfg.INPUT.MAX_SIZE_TEST, box_extent=build_convention(self.cfg).extent
        )
        card = ModelCard(tuple(self.model.class_names), {}, 0.3, rule)
        samples = calibration_samples(self.cfg, card) if self.weights else [noise(size)]
        network = to_onnx(build_graph(self.cfg, self.model, FixedShape()), card)
        for form, model in ((ORT, network), (f"{ORT} int8", quantize_onnx(network, samples))):
            self.files[form] = folder / f"{form}.onnx"
            onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
            onnx.save(model, self.files[form])
        for precision in ("fp32", "bf16", "int8"):
            form = f"OpenVINO {precision}"
            self.files[form] = folder / f"{form}.xml"
            model = convert(folder / f"{ORT}.onnx")
            if precision == "int8":
                model = quantize_openvino(model, samples)
            elif precision == "bf16":
                keep_regions_exact(model)
            save(model, replace(card, inference_precision=INFERENCE_PRECISION[precision]), self.files[form])

    def calls(self, size: tuple[int, int]) -> dict[str, Call]:
        """Each form on one image as bytes."""
        inputs = noise(size)
        pixels = torch.from_numpy(inputs["images"][0]).permute(2, 0, 1)  # (C, H, W)
        normalize = build_normalize(self.cfg).pixels
        fast = fold_norms(self.model).to(memory_format=torch.channels_last)

        @torch.inference_mode()
        def run_plain() -> object:
            return self.model.detect([normalize(pixels)])

        @torch.inference_mode()
        def run_fast() -> object:
            with torch.autocast("cpu", torch.bfloat16, enabled=is_native(CPU, torch.bfloat16)):
                return fast.detect([normalize(pixels)])

        calls: dict[str, Call] = {PLAIN: run_plain, FAST: run_fast}
        for form, path in self.files.items():
            network, _ = open_network(path, threads=1)
            calls[form] = lambda network=network: network(inputs["images"], inputs["sizes"])
        return calls

    def precisions(self, num_images: int) -> dict[str, float]:
        """AP of plain torch and of each file on the first test set; {} without trained weights."""
        if not self.weights:
            return {}
        check = ExportCheck(self.cfg, Predictor(self.cfg, self.weights, threshold=0.0), limit=num_images)
        found: dict[str, float] = {}
        for form, path in self.files.items():
            metrics = check(Detector(path, threshold=0.0, threads=1))[0].metrics
            found |= {PLAIN: metrics[0]["AP"], form: metrics[1]["AP"]} if metrics else {}
        return found


def noise(size: tuple[int, int]) -> dict[str, np.ndarray]:
    """One image of `size` as a network takes it."""
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    return {"images": images, "sizes": np.array([size], dtype=np.int64)}


def random_case(path: Path) -> Case:
    torch.manual_seed(0)
    counts = [
        word for group in ("ATSS", "ROI_BOX_HEAD") for word in (f"MODEL.{group}.NUM_CLASSES", "0")
    ]  # of the names
    cfg = load_config(path, [*PLAIN_KEYS, *counts, "MODEL.WEIGHT", ""])
    return Case(path.stem, cfg, build_model(cfg, [f"class {k}" for k in range(NUM_CLASSES)]).eval())


def trained_case(path: str, weights: str, keys: Sequence[str]) -> Case:
    cfg = load_config(path, [*keys, *PLAIN_KEYS, "MODEL.WEIGHT", weights])
    return Case(Path(path).stem, cfg, build_trained_model(cfg), weights)


def times_of(calls: Mapping[str, Call], turns: int) -> dict[str, list[float]]:
    """CPU seconds of each call in each turn; a first turn warms up."""
    times: dict[str, list[float]] = {form: [] for form in calls}
    for turn in range(turns + 1):
        for form, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                times[form].append(time.process_time() - start)
    return times


def measure(case: Case, size: tuple[int, int], turns: int, num_images: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        case.write_files(Path(folder), size)
        times = times_of(case.calls(size), turns)
        aps = case.precisions(num_images)
    rows = []
    for form, each in times.items():
        factors = [plain / own for plain, own in zip(times[PLAIN], each, strict=True)]
        rows.append(Row(case.name, form, 1e3 * median(each), median(factors), aps.get(form)))
    return rows


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="multiples of 32")
    parser.add_argument("--turns", type=int, default=9, metavar="N", help="timed calls of each form (%(default)s)")
    parser.add_argument("--config-file", nargs="+", type=Path, default=RANDOM, metavar="F", help="with random weights")
    parser.add_argument("--trained", nargs=2, action="append", default=[], metavar=("F", "W"), help="instead of those")
    parser.add_argument("--images", type=int, default=50, metavar="N", help="for the AP; 0 for all (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("pairs", nargs="*", default=[], metavar="KEY VALUE", help="for the configurations of --trained")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    missed: list[str] = []
    for place in args.trained or args.config_file:
        case = trained_case(*place, args.pairs) if args.trained else random_case(place)
        measured = measure(case, tuple(args.size), args.turns, args.images)
        missed += [fault for row in measured for fault in row.missed(measured[0].ap)]
        rows += measured
        table = [
            [row.form, row.milliseconds, row.faster, "-" if row.ap is None else f"{row.ap:.4f}"] for row in measured
        ]
        print(case.name, tabulate(table, ["form", "ms", "times plain", "AP"], floatfmt=".1f"), sep="\n", flush=True)
    print(*(f"missed: {fault}" for fault in missed), sep="\n")
    text = json.dumps(
        {"size": args.size, "torch": torch.__version__, "rows": [vars(row) for row in rows], "missed": missed}
    )
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
