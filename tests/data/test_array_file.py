"""Images in NumPy's .npy files, whose headers are text that a careless reader would run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from engine.data.image_file import may_be_deep, read_image, read_samples, read_size
from engine.data.reading import Reading
from engine.errors import InputError


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", ["u1", ">u2", "<i4", "f2", ">f4", "f8", "i1"])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 6)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_plain_array(tmp_path: Path, dtype: str, shape: tuple[int, ...], order: str) -> None:
    array = np.asarray(np.random.default_rng(0).integers(0, 100, shape).astype(dtype), order=order)
    channels = shape[2] if len(shape) == 3 else 1
    for version in ((1, 0), (2, 0), (3, 0)):
        path = tmp_path / "a.npy"
        path.write_bytes(npy(array, version))
        found = read_samples(path, reading=Reading(None, channels))
        assert (found == array).all() and found.dtype == array.dtype.newbyteorder("=")
        assert found.flags.writeable  # else PyTorch warns of it
    assert read_size(path) == (20, 30) and may_be_deep(path) == (dtype != "u1")
    pixels = read_image(path, reading=Reading((0, 99), channels))
    assert pixels.shape == (20, 30, channels) and pixels.dtype == (np.uint8 if dtype == "u1" else np.float32)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy(np.zeros((4, 20, 30), np.uint8)), "has 30 channels, but INPUT.CHANNELS is 3"),
        (npy(np.zeros(20)), r"has the shape \(20,\); an image has \(H, W\) or \(H, W, C\)"),
        (npy(np.zeros((0, 20))), r"has the shape \?; an image"),
        (npy(np.zeros((2, 2, 2, 2))), "has the shape"),
        (npy(np.zeros((2, 2), complex)), "holds no integers or floats"),
        (npy(np.zeros((2, 2), [("a", "u1")])), "holds no integers or floats"),
        (npy(np.full((2, 2), "text")), "holds no integers or floats"),
        (npy(np.zeros((20, 30)))[:-1], "truncated"),
        (npy(np.zeros((20, 30)))[:20], "NumPy header is damaged"),
        (b"\x93NUMPY\x01\x00", "NumPy header is damaged"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "NumPy header is damaged"),
        (npy(np.zeros((20, 30))).replace(b"'descr'", b"'other'"), "NumPy header is damaged"),
        (npy(np.zeros((20, 30))).replace(b"(20, 30)", b"exit(1) "), "NumPy header is damaged"),
        (npy(np.zeros((20, 30))).replace(b"(20, 30)", b"(True,9)"), r"has the shape \?"),
        (b"\x93NUMPY\x01\x00\x40\x1f" + b"(" * 8000, "NumPy header is damaged"),
    ],
)
def test_other_arrays_are_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        read_image(tmp_path / "a.npy")
    assert str(caught.value).startswith(f"{tmp_path / 'a.npy'}: ") and "\n" not in str(caught.value)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple:
            return (tmp_path / "run").touch, ()

    (tmp_path / "a.npy").write_bytes(npy(np.array([[Runs()]], dtype=object)))
    with pytest.raises(InputError, match="holds no integers or floats"):
        read_image(tmp_path / "a.npy")
    assert not (tmp_path / "run").exists()


def test_a_forged_shape_costs_no_memory(tmp_path: Path) -> None:
    data = npy(np.zeros((20, 30)))
    (tmp_path / "a.npy").write_bytes(data.replace(b"(20, 30), }", b"(9999999999999, 9999999999), }")[: len(data)])
    with pytest.raises(InputError, match="more than can be read"):
        read_image(tmp_path / "a.npy")
