"""Frames that show their number as black and white blocks, which survive compression, and a fake that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.data.image_file import read_image
from engine.structures import Detections

BITS, BLOCK = 10, 8
SIZE = (48, 96)


def coded(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    image = np.full((*size, 3), 90, np.uint8)
    for bit in range(BITS):
        image[-2 * BLOCK :, bit * BLOCK : (bit + 1) * BLOCK] = 255 if number >> bit & 1 else 0
    return image


def number_in(image: np.ndarray) -> int:
    blocks = [image[-BLOCK - 2 : -BLOCK + 2, bit * BLOCK + 2 : (bit + 1) * BLOCK - 2] for bit in range(BITS)]
    return sum(1 << bit for bit, block in enumerate(blocks) if block.mean() > 127)


def write_video(path: Path, count: int, rate: float = 20.0, size: tuple[int, int] = SIZE) -> Path:
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, size[::-1])
    for number in range(count):
        writer.write(coded(number, size))
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        is_read, frame = capture.read()
        if not is_read:
            return frames
        frames.append(frame)


def numbers_of(path: Path) -> list[int]:
    return [number_in(frame) for frame in frames_of(path)]


class Coder:
    """Stands in for a predictor: a box in every image, whose score is the number that it shows, in thousandths."""

    class_names: Sequence[str] = ["hole", "stain"]
    thresholds = torch.tensor([0.25, 0.5])

    def __init__(self) -> None:
        self.seen: list[int] = []

    def pixels(self, image: Path | np.ndarray) -> np.ndarray:
        return read_image(image) if isinstance(image, Path) else image

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return [self.detect(image) for image in images]

    def detect(self, pixels: np.ndarray) -> Detections:
        number = number_in(pixels)
        self.seen.append(number)
        box = torch.tensor([[4.0, 4.0, 20.0, 14.0]])
        return Detections(box, torch.tensor([number / 1000]), torch.tensor([number % 2]), pixels.shape[:2])
