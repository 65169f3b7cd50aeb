"""`demo/atss_demo.py` on folders as they are, and a part of the user's own named in `IMPORTS`."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.end_to_end.conftest import REPOSITORY, Trained, World, run


@pytest.fixture(scope="module")
def drawn(world: World, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Pictures of a folder with three good images, a text named .jpg, a truncated JPEG and an empty PNG."""
    images = tmp_path_factory.mktemp("demo") / "images"
    images.mkdir()
    source = sorted((world.root / "val").glob("*.jpg"))
    for path, name in zip(source, ("a.jpg", "布 défaut.jpeg", "UPPER.JPG"), strict=False):
        shutil.copy(path, images / name)
    (images / "text.jpg").write_text("hello")
    (images / "truncated.jpg").write_bytes(source[3].read_bytes()[:2000])
    (images / "empty.png").touch()
    (images / "notes.txt").write_text("not an image, and not named like one")
    options = ["--weights", trained.model, "--images-dir", images, "--output-dir", images.parent / "pictures"]
    done = run(world.command("demo/atss_demo.py", *options, "--threshold", "0.1", "--min-image-size", "96"))
    assert done.returncode == 0, done.stderr
    return Trained(images.parent, done.stdout, done.stderr)


def test_readable_images_are_drawn(drawn: Trained) -> None:
    pictures = {path.name: path for path in (drawn.folder / "pictures").iterdir()}
    assert set(pictures) == {"a.jpg", "布 défaut.jpeg", "UPPER.JPG"}
    for name, path in pictures.items():
        before, after = (
            cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
            for file in (drawn.folder / "images" / name, path)
        )
        assert before.shape == after.shape
        assert (np.abs(before.astype(int) - after) > 60).any(), "no box was drawn"


def test_unreadable_images_are_named_and_counted(drawn: Trained) -> None:
    skipped = [line for line in drawn.output.splitlines() if line.startswith("skipped:")]
    assert len(skipped) == 3
    assert all(any(name in line for line in skipped) for name in ("text.jpg", "truncated.jpg", "empty.png"))
    assert "3 images drawn" in drawn.output and "3 unreadable skipped" in drawn.output and drawn.errors == ""


def test_a_table_of_counts_ends_it(drawn: Trained) -> None:
    rows = [line.split() for line in drawn.output.splitlines()]
    assert ["class", "detections", "images", "threshold"] in rows
    counts = {row[0]: row[1:] for row in rows if row and row[0] in ("hole", "stain", "knot", "float", "all")}
    assert len(counts) == 5 and int(counts["all"][0]) > 0 and counts["hole"][2] == "0.100"


@pytest.mark.parametrize(("files", "answer"), [({"a.jpg": b"x"}, "none of the 1"), ({}, "holds no image")])
def test_nothing_readable_is_one_line(
    world: World, trained: Trained, tmp_path: Path, files: dict[str, bytes], answer: str
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, content in files.items():
        (images / name).write_bytes(content)
    options = ["--weights", trained.model, "--images-dir", images, "--output-dir", tmp_path / "pictures"]
    done = run(world.command("demo/atss_demo.py", *options))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and answer in done.stderr


def test_files_folders_and_patterns(world: World, trained: Trained, tmp_path: Path) -> None:
    """KEY VALUE pairs directly behind the places, as behind a single folder before."""
    source = sorted((world.root / "val").glob("*.jpg"))
    for path, name in zip(source, ("a/x.jpg", "a/deep/x.jpg", "b/x.jpg", "b/.hidden.jpg", "c.jpg"), strict=False):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / name)
    (tmp_path / "b" / "notes.txt").touch()
    out = tmp_path / "pictures"
    options = ["--weights", trained.model, "--output-dir", out, "--recursive", "--images-dir", tmp_path / "a"]
    options += [tmp_path / "b", tmp_path / "c*", tmp_path / "c.jpg", "TEST.IMS_PER_BATCH", "1"]
    done = run(world.command("demo/atss_demo.py", *options))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jpg"))
    assert names == ["c.jpg", "deep/x.jpg", "x.jpg", "x_2.jpg"]
    assert f"4 images drawn to {out}\nleft out: 1 hidden, 1 named twice, 1 not an image (.txt)" in done.stdout


OWN_PART = """
from torch import nn
from engine.layers.norm import NORMS

@NORMS.register("NoNorm")
def NoNorm(channels):
    return nn.Identity()
"""


def test_a_part_of_ones_own(world: World, tmp_path: Path) -> None:
    """A norm of a module in the working folder, named in IMPORTS."""
    (tmp_path / "my_part.py").write_text(OWN_PART)
    keys = ["IMPORTS", "('my_part',)", "MODEL.RESNETS.NORM", "NoNorm", "SOLVER.MAX_ITER", "1", "OUTPUT_DIR", "run"]
    done = run(world.command(REPOSITORY / "tools/train_net.py", "--skip-test", *keys), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model_final.pth").is_file()
