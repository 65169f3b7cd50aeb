"""Image files of many formats: read whole, by their header, from a data set, and from the demo's folder."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import cv2
import numpy as np
import torch
from PIL import Image

from engine.data.image_file import read_image, read_size
from engine.data.reading import Reading
from engine.errors import InputError
from engine.inference.drawing import draw_items
from engine.inference.items import find_items
from engine.inference.predictor import ImagePredictor
from engine.log import setup_logging
from engine.structures import Detections, ImageBatch
from tests.data.tiff_file import tiff_file
from tests.fuzz.example import Example, Kind
from tests.fuzz.mutate import change_bytes
from tests.fuzz.valid import picture, random_of

ORIENTATION = 0x0112
SIDES = [0, 1, 2, 31, 255, 65535, 65536, 2**20, 2**31 - 1, 2**31, 2**32 - 1]


class Finder(torch.nn.Module):
    """A detector that finds one box in each image."""

    def detect(self, batch: ImageBatch) -> list[Detections]:
        box = torch.tensor([[1.0, 1.0, 9.0, 9.0]])
        return [Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.int64), size) for size in batch.sizes]


class Images:
    """See the text at the head of the file."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.files = _valid_images()
        self.predictor = ImagePredictor(
            Finder(),
            lambda image: (torch.from_numpy(image).permute(2, 0, 1).float(), None),
            torch.device("cpu"),
            ["hole"],
        )

    def example(self, number: int, folder: Path) -> Example:
        random = random_of("images", self.seed, number)
        name = random.choice(sorted(self.files))
        data = self.files[name]
        changes: list[Callable[[Random, bytes], bytes]] = [
            change_bytes,
            change_bytes,
            _with_other_sides,
            _with_noise_inside,
        ]
        data = random.choice(changes)(random, data)
        if random.random() < 0.03:
            data = random.choice([b"", b"\0" * 100, random.randbytes(1000), data + data, b"<html></html>", b"GIF89a"])
        if random.random() < 0.05:  # a name that does not fit
            name = f"x.{random.choice(['png', 'jpg', 'bmp', 'tif', 'webp'])}"
        path = folder / "in" / name
        path.parent.mkdir()
        path.write_bytes(data)
        way = random.randrange(3)
        if way == 0:
            return Example("read_size", lambda: read_size(path), (name,))
        if way == 1:
            return Example("read_image", lambda: self._read(random, path), (name,))
        (path.parent / "zz.png").write_bytes(self.files["bgr.png"])  # so that the folder holds one that can be drawn
        return Example("demo", lambda: self._demo(folder), (name,), ("out",))

    def _read(self, random: Random, path: Path) -> None:
        expected = random.choice([None, (24, 32), (32, 24), (5, 5)])
        channels = random.choice([3, 3, 3, 1, 2, 4, 5])
        image = read_image(path, expected, Reading(random.choice([None, (0.0, 4095.0)]), channels))
        is_image = image.dtype in (np.uint8, np.float32) and image.ndim == 3 and image.size > 0
        is_image = is_image and image.shape[2] == channels
        assert is_image, f"{image.dtype} {image.shape}"
        try:
            size = read_size(path)
        except InputError:
            return
        if expected is None:
            assert size == image.shape[:2], f"the header says {size}, the image is {image.shape[:2]}"

    def _demo(self, folder: Path) -> None:
        setup_logging()
        draw_items(self.predictor, find_items([str(folder / "in")]), folder / "out")


def _valid_images() -> dict[str, bytes]:
    """File name -> content."""
    bgr, files = picture(), {}
    grey, deep = bgr[..., 0], bgr.astype(np.uint16) * 257
    for suffix in (".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm", ".hdr"):
        files[f"bgr{suffix}"] = cv2.imencode(suffix, bgr.astype(np.float32) if suffix == ".hdr" else bgr)[1].tobytes()
    for name, image in {"grey.png": grey, "grey.pgm": grey, "deep.png": deep, "deep.tiff": deep[..., 0],
                        "alpha.png": np.dstack([bgr, grey]),
                        "float.tiff": bgr[..., 0].astype(np.float32)}.items():  # fmt: skip
        files[name] = cv2.imencode(Path(name).suffix, image)[1].tobytes()
    five = np.dstack([bgr, grey, grey])
    for order in "<>":
        for tile in (0, 16):
            files[f"five{ord(order)}{tile}.tif"] = tiff_file(five, tile=tile, compression=8, predictor=2, order=order)
    files["pages.tif"] = tiff_file(*np.moveaxis(five, 2, 0))
    files["white.tif"] = tiff_file(deep[..., 0], photometric=0)
    files["lab.tif"] = tiff_file(bgr, photometric=8)
    files["inks.tif"] = tiff_file(np.dstack([deep, deep[..., :1]]), photometric=5)
    files["alpha.tif"] = tiff_file(five[..., :4], photometric=2, tags={338: [2]})
    for name, array in (("five", five), ("grey", grey), ("deep", deep), ("float", bgr.astype(np.float32))):
        stream = io.BytesIO()
        np.save(stream, array)
        files[f"{name}.npy"] = stream.getvalue()
    rgb = Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    files["palette.png"] = _saved(rgb.convert("P"), "PNG")
    files["bits.png"] = _saved(rgb.convert("1"), "PNG")
    files["bits.tif"] = _saved(rgb.convert("1"), "TIFF", compression="group4")
    files["lzw.tif"] = _saved(rgb, "TIFF", compression="tiff_lzw")
    files["jpeg.tif"] = _saved(rgb, "TIFF", compression="jpeg")
    files["cmyk.jpg"] = _saved(rgb.convert("CMYK"), "JPEG")
    files["progressive.jpg"] = _saved(rgb, "JPEG", progressive=True)
    files["moving.gif"] = _saved(rgb.convert("P"), "GIF", save_all=True, append_images=[rgb.rotate(90).convert("P")])
    files["lossless.webp"] = _saved(rgb, "WEBP", lossless=True)
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        for suffix, format_ in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")):
            files[f"turned{orientation}.{suffix}"] = _saved(rgb, format_, exif=exif)
    return files


def _saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _with_other_sides(random: Random, data: bytes) -> bytes:
    """The header states other sides; the checksum of a PNG is right."""
    sides = random.choice(SIDES), random.choice([24, *SIDES])
    if data.startswith(b"\x89PNG"):
        header = b"IHDR" + struct.pack(">II", *sides) + data[24:29]
        return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<II", *sides) + data[26:]
    if data.startswith(b"\xff\xd8"):
        at = max(data.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2"))
        return data[: at + 5] + struct.pack(">HH", *(side % 65536 for side in sides)) + data[at + 9 :]
    for old in (24, 32):  # wherever the number stands
        for form in random.sample(["<H", ">H", "<I", ">I"], 4):
            size, number = struct.calcsize(form), random.choice(SIDES)
            data = data.replace(struct.pack(form, old), struct.pack(form, number % 256**size), 1)
    return data


def _with_noise_inside(random: Random, data: bytes) -> bytes:
    """Headers and end stay as they are."""
    third = len(data) // 3
    return data[:third] + change_bytes(random, data[third : 2 * third]) + data[2 * third :]


def build(seed: int, folder: Path) -> Kind:
    return Images(seed)
