"""Generate a COCO-format data set of woven fabric with defects.

    python datasets/generate_fabric.py --output datasets/fabric --train 600 --val 100 --seed 0

Each picture is a weave of warp (vertical) and weft (horizontal) threads under uneven light. There are five kinds of
defects, in the order of their category ids:

    1 hole, 2 stain, 3 broken_thread (slender, down to 1:50), 4 knot (tiny, 6 to 14 pixels),
    5 float (a patch whose threads are not interlaced)

About one picture in ten has no defect. Boxes are the exact bounds of the drawn pixels.

Image k of a split depends only on the seed, the split and k: generating more images does not change the first ones,
and the same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path

CLASS_NAMES = ("hole", "stain", "broken_thread", "knot", "float")
EMPTY_SHARE = 0.1  # of the images have no defect
MAX_DEFECTS = 4  # per image
GAP = 6  # pixels between two defects
PLACING_TRIES = 20
VISIBLE = 0.3  # a pixel belongs to a defect that covers at least this share of it

Rng = np.random.Generator
Window = tuple[slice, slice]  # rows, columns


@dataclass
class Threads:
    """The position of each pixel in the weave.

    Attributes:
        u, v: (H, W) float32, warp and weft coordinates; the integer part is the index of the thread.
        warp_up: (H, W) bool, whether the warp thread is on top.
        warp_color, weft_color: (H, W, 3) float32 in 0..1.
    """

    u: np.ndarray
    v: np.ndarray
    warp_up: np.ndarray
    warp_color: np.ndarray
    weft_color: np.ndarray

    def crop(self, window: Window) -> Threads:
        """The same threads inside a window of the picture."""
        fields = (self.u, self.v, self.warp_up, self.warp_color, self.weft_color)
        return Threads(*(field[window] for field in fields))


# ---------------------------------------------------------------- fabric


def smooth_noise(rng: Rng, height: int, width: int, cell: float) -> np.ndarray:
    """(height, width) float32 noise in about -1..1 that varies on a scale of `cell` pixels."""
    rows, columns = int(height / cell) + 3, int(width / cell) + 3
    grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    full = (int(columns * cell) + 1, int(rows * cell) + 1)
    return cv2.resize(grid, full, interpolation=cv2.INTER_CUBIC)[:height, :width]


def weave_pattern(rng: Rng, warp_idx: np.ndarray, weft_idx: np.ndarray) -> np.ndarray:
    """Which crossings show the warp thread: plain, basket, two twills or satin."""
    patterns: list[Callable[[np.ndarray, np.ndarray], np.ndarray]] = [
        lambda i, j: (i + j) % 2 == 0,
        lambda i, j: (i // 2 + j // 2) % 2 == 0,
        lambda i, j: (i + j) % 4 < 2,
        lambda i, j: (i - j) % 3 < 1,
        lambda i, j: (i + 2 * j) % 5 != 0,
    ]
    return patterns[rng.integers(len(patterns))](warp_idx, weft_idx)


def yarn_color(rng: Rng, base: np.ndarray, thread_idx: np.ndarray, stripe: int) -> np.ndarray:
    """(H, W, 3) colour of the threads: each yarn differs a little, and some form stripes."""
    first = thread_idx.min()
    gain = rng.normal(1.0, 0.035, int(thread_idx.max() - first) + 1).astype(np.float32)
    if stripe:
        gain[(np.arange(len(gain)) // stripe) % 2 == 0] *= rng.uniform(0.86, 0.94)
    return base * gain[thread_idx - first][..., None]


def lay_threads(rng: Rng, height: int, width: int) -> Threads:
    """A piece of cloth with random pitch, waviness, pattern and colours."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = rng.uniform(0.4, 1.4)
    pitch_x, pitch_y = rng.uniform(4.0, 7.5, 2).astype(np.float32)
    u = (x + wave * smooth_noise(rng, height, width, 90) + 20) / pitch_x
    v = (y + wave * smooth_noise(rng, height, width, 90) + 20) / pitch_y
    warp_idx, weft_idx = u.astype(np.int32), v.astype(np.int32)
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(0.03, 0.5), rng.uniform(0.45, 0.85)]]], np.float32)
    base = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0]
    other = np.clip(base * rng.uniform(0.8, 1.15) + rng.normal(0, 0.03, 3), 0.1, 0.95)
    stripe = int(rng.integers(3, 9)) if rng.random() < 0.25 else 0
    return Threads(
        u=u,
        v=v,
        warp_up=weave_pattern(rng, warp_idx, weft_idx),
        warp_color=yarn_color(rng, base, warp_idx, stripe),
        weft_color=yarn_color(rng, other.astype(np.float32), weft_idx, stripe),
    )


def roundness(position: np.ndarray) -> np.ndarray:
    """Brightness across a round thread: 1 on its axis, 0 between two threads."""
    return np.sin(np.pi * (position - np.floor(position)))


def shade(threads: Threads) -> np.ndarray:
    """(H, W, 3) float32: the colour of the upper thread, dark between threads and bright along their middle."""
    across_warp, across_weft = roundness(threads.u), roundness(threads.v)
    warp = (0.5 + 0.38 * across_warp + 0.12 * across_weft)[..., None] * threads.warp_color
    weft = (0.46 + 0.38 * across_weft + 0.12 * across_warp)[..., None] * threads.weft_color
    return np.where(threads.warp_up[..., None], warp, weft)


def light(rng: Rng, height: int, width: int) -> np.ndarray:
    """(H, W, 1) brightness factor of a gradient, clouds and up to two soft folds."""
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    factor = 1 + rng.uniform(0.05, 0.3) * (x * np.cos(angle) + y * np.sin(angle))
    factor += 0.05 * smooth_noise(rng, height, width, 70)
    for _ in range(rng.integers(0, 3)):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4)
        distance = (x * np.cos(angle) + y * np.sin(angle) - offset) / rng.uniform(0.06, 0.15)
        factor += rng.uniform(0.05, 0.14) * distance * np.exp(-(distance**2))
    return factor[..., None].astype(np.float32)


# ---------------------------------------------------------------- defects
# Each function draws into `image` inside `window` and returns the coverage of each pixel there, 0..1.


def blob(rng: Rng, height: int, width: int, raggedness: float) -> np.ndarray:
    """(height, width) float32: 1 in the middle of an irregular ellipse, 0 on its outline, negative outside."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle, ripple = np.arctan2(y, x), np.zeros((height, width), np.float32)
    for frequency in range(2, 6):
        ripple += np.cos(frequency * angle + rng.uniform(0, 2 * np.pi)) / frequency
    noise = smooth_noise(rng, height, width, max(3.0, min(height, width) / 8))
    return 0.95 - np.hypot(x, y) * (1 + raggedness * (0.5 * ripple + 0.5 * noise))


def draw_hole(rng: Rng, image: np.ndarray, threads: Threads, window: Window) -> np.ndarray:
    """A torn hole: the background behind it, a shadow at the rim, loose yarn across."""
    local, part = threads.crop(window), image[window]
    height, width = local.u.shape
    depth = blob(rng, height, width, 0.45)
    fray = 0.08 * (roundness(local.u) + roundness(local.v))
    cover = np.clip((depth - fray) * min(height, width) / 3, 0, 1)
    behind = np.full(3, rng.uniform(0.02, 0.16), np.float32) * rng.uniform(0.8, 1.2, 3)
    inside = behind + 0.03 * smooth_noise(rng, height, width, 6)[..., None]
    loose = (smooth_noise(rng, height, width, 7) > 0.55) & (roundness(local.u) > 0.6)
    inside = np.where(loose[..., None], 0.45 * local.warp_color, inside)
    rim = 1 - 0.25 * np.clip(1 - np.abs(depth) * 10, 0, 1)
    part[:] = (part * rim[..., None]) * (1 - cover[..., None]) + inside * cover[..., None]
    return cover


def draw_stain(rng: Rng, image: np.ndarray, threads: Threads, window: Window) -> np.ndarray:
    """A dried liquid: the weave stays visible, and the border is a little stronger."""
    part = image[window]
    height, width = part.shape[:2]
    depth = blob(rng, height, width, 0.3)
    cover = np.clip(depth * min(height, width) / 9, 0, 1)
    border = np.exp(-(((depth - 0.12) / 0.1) ** 2)) * rng.uniform(0, 0.35)
    strength = np.clip(cover * (rng.uniform(0.5, 0.8) + border), 0, 1)[..., None]
    if part.mean() < 0.25:  # on dark cloth a stain is only visible if it bleaches
        pale = np.full(3, rng.uniform(0.6, 0.8)) * (0.5 + part / (2 * part.mean()))
        part += 0.6 * strength * (pale.astype(np.float32) - part)
        return cover
    inks = [(0.25, 0.45, 0.62), (0.65, 0.4, 0.3), (0.35, 0.35, 0.36), (0.3, 0.6, 0.45)]  # BGR
    ink = np.array(inks[rng.integers(len(inks))], np.float32) + rng.normal(0, 0.04, 3)
    part *= 1 - strength * (1 - ink.astype(np.float32))
    return cover


def draw_broken_thread(rng: Rng, image: np.ndarray, threads: Threads, window: Window) -> np.ndarray:
    """A missing piece of yarn: a slender dark gap, crossed by the other threads."""
    local, part = threads.crop(window), image[window]
    height, width = local.u.shape
    lying = width >= height
    thickness, length = (height, width) if lying else (width, height)
    crossing = roundness(local.u if lying else local.v.T)
    bend = 0.06 * smooth_noise(rng, 1, length, 40)[0]
    across = np.abs(np.linspace(-1, 1, thickness, dtype=np.float32)[:, None] + bend)
    fray = np.repeat(rng.uniform(0.9, 1.05, length // 3 + 1), 3)[:length].astype(np.float32)
    ends = np.minimum(np.arange(length), np.arange(length)[::-1])
    cover = np.clip((fray - across) * thickness / 2 + 0.4, 0, 1) * np.clip(ends / 3 + 0.35, 0, 1)
    dark = rng.uniform(0.55, 0.85) * (1 - 0.3 * crossing)
    gap = np.clip((0.85 - across) * thickness / 2, 0, 1) * dark
    edge = np.clip(1 - np.abs(across - 0.9) * 4, 0, 1) * rng.uniform(0.2, 0.45)
    factor = 1 + cover * (edge - gap)
    factor, cover = (factor, cover) if lying else (factor.T, cover.T)
    part *= factor[..., None].astype(np.float32)
    return cover


def draw_knot(rng: Rng, image: np.ndarray, threads: Threads, window: Window) -> np.ndarray:
    """A tied yarn end: a small bright bump, lit from one side and dark on the other."""
    part = image[window]
    height, width = part.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    radius = np.hypot(x, y) * (1 + 0.12 * np.cos(3 * np.arctan2(y, x) + rng.uniform(0, 6)))
    cover = np.clip((1.02 - radius) * min(height, width) / 2.5, 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    lit = 0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle))
    color = threads.weft_color[window].mean((0, 1)) * rng.uniform(1.4, 1.9) + 0.15
    bump = np.clip((0.3 + 0.85 * lit)[..., None] * color, 0, 1)
    part[:] = part * (1 - cover[..., None]) + bump * cover[..., None]
    return cover


def draw_float(rng: Rng, image: np.ndarray, threads: Threads, window: Window) -> np.ndarray:
    """Threads that are not interlaced: side by side, loose and shiny, bound in a few places."""
    local, part = threads.crop(window), image[window]
    height, width = local.u.shape
    cover = np.clip((blob(rng, height, width, 0.2) + 0.05) * min(height, width) / 3, 0, 1)
    lengthwise = rng.random() < 0.5
    bound = (local.u.astype(int) * 3 + local.v.astype(int)) % 9 == 0
    local.warp_up = bound ^ lengthwise
    sheen = roundness(local.u if lengthwise else local.v) ** 3
    loose = shade(local) * (rng.uniform(1.0, 1.15) + rng.uniform(0.25, 0.6) * sheen[..., None])
    part[:] = part * (1 - cover[..., None]) + loose * cover[..., None]
    return cover


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A random number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def defect_size(rng: Rng, kind: int, side: int, max_ratio: float) -> tuple[int, int]:
    """(height, width) in pixels of a defect of class `kind`; `side` is the short side of the image."""
    name = CLASS_NAMES[kind]
    if name == "knot":
        return int(rng.integers(8, 15)), int(rng.integers(8, 15))
    if name == "broken_thread":
        thickness = int(rng.integers(7, 14))
        length = int(min(thickness * log_uniform(rng, 6, max(6.0, max_ratio)), side - 8))
        return (thickness, length) if rng.random() < 0.5 else (length, thickness)
    low, high = {"hole": (14, 48), "stain": (24, 88), "float": (24, 72)}[name]
    size, ratio = log_uniform(rng, low, min(high, side / 2)), log_uniform(rng, 0.6, 1.7)
    return max(6, int(size * ratio**0.5)), max(6, int(size / ratio**0.5))


DRAWERS = (draw_hole, draw_stain, draw_broken_thread, draw_knot, draw_float)  # as CLASS_NAMES


# ---------------------------------------------------------------- images and annotations


def place(rng: Rng, size: tuple[int, int], taken: np.ndarray) -> Window | None:
    """A free window of `size` in the (H, W) bool map `taken`, or None if none is found."""
    (height, width), (rows, columns) = taken.shape, size
    if rows > height - 4 or columns > width - 4:
        return None
    for _ in range(PLACING_TRIES):
        top = int(rng.integers(2, height - rows - 1))
        left = int(rng.integers(2, width - columns - 1))
        near = taken[max(0, top - GAP) : top + rows + GAP, max(0, left - GAP) : left + columns + GAP]
        if not near.any():
            return slice(top, top + rows), slice(left, left + columns)
    return None


def bounds(mask: np.ndarray, window: Window) -> list[int] | None:
    """[x, y, width, height] of the True pixels of `mask`, drawn at `window`; None if there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    x, y = int(window[1].start + columns[0]), int(window[0].start + rows[0])
    return [x, y, int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1]


def draw_image(rng: Rng, height: int, width: int, max_ratio: float) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """One picture: BGR uint8 (H, W, 3), and (category index, [x, y, width, height]) for each defect."""
    threads = lay_threads(rng, height, width)
    image = shade(threads)
    taken = np.zeros((height, width), bool)
    defects = []
    count = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, MAX_DEFECTS + 1))
    while len(defects) < count:
        kind = int(rng.integers(len(CLASS_NAMES)))
        window = place(rng, defect_size(rng, kind, min(height, width), max_ratio), taken)
        if window is None:
            count -= 1
            continue
        box = bounds(DRAWERS[kind](rng, image, threads, window) >= VISIBLE, window)
        taken[window] = True
        if box is not None:
            defects.append((kind, box))
    image *= light(rng, height, width)
    image += rng.normal(0, rng.uniform(0.008, 0.025), (height, width, 1)).astype(np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), defects


def write_split(arguments: argparse.Namespace, split: str, count: int) -> int:
    """Write the images and the annotation file of one split; returns the number of boxes."""
    folder = arguments.output / split
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    images, annotations = [], []
    for k in range(count):
        rng = np.random.default_rng([arguments.seed, ("train", "val").index(split), k])
        image, defects = draw_image(rng, arguments.height, arguments.width, arguments.max_ratio)
        name = f"{split}_{k:05d}.jpg"
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(88, 97))])[1]
        (folder / name).write_bytes(data.tobytes())
        images.append({"id": k + 1, "file_name": name, "height": arguments.height, "width": arguments.width})
        for kind, box in defects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": k + 1,
                    "category_id": kind + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(arguments.class_names)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    path = arguments.output / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco, ensure_ascii=False), encoding="utf-8")
    return len(annotations)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=user_path, default=Path("datasets/fabric"), help="folder (datasets/fabric)")
    parser.add_argument("--train", type=int, default=600, help="number of training images (600)")
    parser.add_argument("--val", type=int, default=100, help="number of validation images (100)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (0)")
    parser.add_argument("--height", type=int, default=256, help="of the images, in pixels (256)")
    parser.add_argument("--width", type=int, default=320, help="of the images, in pixels (320)")
    parser.add_argument(
        "--class-names",
        nargs=len(CLASS_NAMES),
        default=list(CLASS_NAMES),
        metavar="NAME",
        help="other names for the five classes, in any script, in the order above",
    )
    parser.add_argument("--max-ratio", type=float, default=50.0, help="largest aspect ratio of a broken_thread (50)")
    arguments = parser.parse_args(argv)
    if min(arguments.height, arguments.width) < 96:
        parser.error("--height and --width must be at least 96 pixels")
    if min(arguments.train, arguments.val, arguments.seed) < 0:
        parser.error("--train, --val and --seed must not be negative")
    if len(set(arguments.class_names)) < len(CLASS_NAMES):
        parser.error("--class-names must be different")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Write both splits."""
    arguments = parse_arguments(argv)
    for split, count in (("train", arguments.train), ("val", arguments.val)):
        boxes = write_split(arguments, split, count)
        print(f"{arguments.output / split}: {count} images, {boxes} boxes")
    return 0


if __name__ == "__main__":
    run_tool(main)
