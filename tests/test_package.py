"""Wheel and sdist as a user meets them: built, installed into a new environment, used from an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import engine
from engine.__main__ import FOLDERS
from tests.conftest import made_once
from tests.prepared import clean_environment

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = ("configs", "datasets", "demo", "engine", "tools")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
QUICK = [
    "SOLVER.MAX_ITER",
    "2",
    "SOLVER.WARMUP_ITERS",
    "0",
    "INPUT.MIN_SIZE_TRAIN",
    "(64,)",
    "INPUT.MIN_SIZE_TEST",
    "96",
]


@dataclass
class Built:
    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both, the wheel from the sdist."""
    pytest.importorskip("build", reason="builds the package: pip install build")
    return made_once(tmp_path_factory, "package", build)


def build(folder: Path) -> Built:
    copy = folder / "repository"  # a build writes beside what it reads
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
        if name == "datasets":  # of which only the texts and scripts belong to the repository
            ignored = lambda _, names: [each for each in names if not each.endswith((".py", ".md"))]  # noqa: E731
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored)
    for name in FILES:
        shutil.copy(REPOSITORY / name, copy)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", copy]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return Built(sdist, wheel)


@dataclass
class Installed:
    """An environment with the wheel, and an empty folder to work in.

    Attributes:
        bin: of the environment.
        folder: where `run` starts commands.
    """

    bin: Path
    folder: Path

    def run(self, program: str, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in clean_environment().items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [self.bin / program, *words], cwd=self.folder, env=env, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == code, f"{program} {words}: {done.stdout}{done.stderr}"
        return done

    def engine(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("engine", *words, code=code)


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    def install(folder: Path) -> Installed:
        """Its Python sees the packages that are installed here, but not this repository."""
        environment = folder / "environment"
        venv.create(environment, with_pip=False)
        bin_folder = environment / ("Scripts" if os.name == "nt" else "bin")
        (site_packages,) = environment.rglob("site-packages")
        packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (site_packages / "here.pth").write_text("\n".join(packages), encoding="utf-8")
        command = [bin_folder / "python", "-m", "pip", "install", "--no-deps", "--no-index", "--ignore-installed"]
        done = subprocess.run([*command, built.wheel], env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "work").mkdir()
        return Installed(bin_folder, folder / "work")

    return made_once(tmp_path_factory, "installed", install)


def repository_files() -> set[str]:
    """What git tracks of the folders that are installed, as paths in the wheel."""
    if not (REPOSITORY / ".git").exists() or not shutil.which("git"):
        pytest.skip("the list of files comes from git")
    listed = subprocess.run(["git", "ls-files", *SOURCES], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = {path for path in listed.stdout.splitlines() if (REPOSITORY / path).exists()}
    return {path if path.startswith("engine/") else f"engine/_shipped/{path}" for path in files}


def test_everything_is_in_the_wheel(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith((".so", ".pyd"))}
    expected = {path for path in repository_files() if not path.endswith((".pyx", ".md"))}
    assert names == expected
    assert "engine/py.typed" in names


def test_the_sdist_has_sources_and_no_results(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not [name for name in names if name.endswith((".c", ".so", ".pyc", ".pth")) or name.startswith("build")]
    expected = {path.removeprefix("engine/_shipped/") for path in repository_files() if not path.endswith(".md")}
    assert expected <= names


def test_the_version_stands_in_one_place(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        text = wheel.read(metadata).decode()
    assert f"\nVersion: {engine.__version__}\n" in text
    assert built.sdist.name == f"engine-{engine.__version__}.tar.gz"
    assert engine.__version__ not in (REPOSITORY / "pyproject.toml").read_text() + (REPOSITORY / "setup.py").read_text()


def test_the_installed_command(installed: Installed) -> None:
    assert installed.engine("--version").stdout == f"engine {engine.__version__}\n"
    scripts = [path for folder in FOLDERS for path in (REPOSITORY / folder).glob("*.py")]
    assert len(re.findall(r"^  [a-z]", installed.engine("--help").stdout, re.M)) == len(scripts) - 1
    wrong = installed.engine("train", "--config-file", "configs/atss/atss_R_50_FPN_1x.yaml", code=2)
    assert wrong.stderr.startswith("error: configs/atss/atss_R_50_FPN_1x.yaml: no such file, nor in ")
    assert wrong.stderr.endswith("; did you mean atss/atss_R_50_FPN_1x.yaml?\n")
    code = "import engine, sys; print(engine.__file__, *sys.path)"
    told = installed.run("python", "-c", code).stdout
    assert told.startswith(str(installed.bin.parent)) and str(REPOSITORY) not in told.split()


def test_from_data_to_pictures_in_an_empty_folder(installed: Installed) -> None:
    """Nothing of the repository is near: the configuration inherits one of the package."""
    size = ["--height", "96", "--width", "128", "--max-ratio", "4"]
    installed.engine("generate-fabric", "--output", "data", "--train", "8", "--val", "4", *size)
    told = installed.engine("new", "data", "--output", "mine.yaml", "--minutes", "0.5", "--device", "cpu")
    assert "\n    engine train --config-file mine.yaml\n" in told.stdout
    assert re.search(r"^_BASE_: .?quickstart/\w+\.yaml", (installed.folder / "mine.yaml").read_text(), re.M)
    installed.engine("train", "--config-file", "mine.yaml", "--skip-test", *QUICK, "DATALOADER.NUM_WORKERS", "1")
    model = installed.folder / "outputs/mine/model_final.pth"
    elsewhere = Installed(installed.bin, installed.folder / "elsewhere")
    elsewhere.folder.mkdir()
    mine = ["--config-file", "../mine.yaml"]
    elsewhere.engine("test", *mine, "MODEL.WEIGHT", model, "OUTPUT_DIR", "results", *QUICK)
    metrics = json.loads((elsewhere.folder / "results/inference/mine_val/metrics.json").read_text())
    assert "AP" in metrics["bbox"]
    elsewhere.engine("predict", *mine, "--weights", model, "--input", "../data/val", "--output-dir", "found")
    assert len((elsewhere.folder / "found/predictions.jsonl").read_text().splitlines()) == 4
    pytest.importorskip("onnxscript")
    told = elsewhere.engine("export", *mine, "--weights", model, "--output", "line.onnx", *QUICK)
    assert "equal detections" in told.stdout and (elsewhere.folder / "line.onnx").is_file()


@pytest.mark.nightly
def test_several_processes_of_the_installed_command(installed: Installed) -> None:
    installed.engine("generate-fabric", "--output", "two", "--train", "8", "--val", "4", "--height", "96")
    installed.engine("new", "two", "--output", "two.yaml", "--minutes", "0.5", "--device", "cpu")
    for words in (["--no-python", "engine"], ["-m", "engine"]):
        launch = ["--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", *words]
        keys = ["SOLVER.IMS_PER_BATCH", "2", "OUTPUT_DIR", words[0], *QUICK]
        process = [str(installed.bin / "python"), "-m", "torch.distributed.run", *launch, "train"]
        env = {**clean_environment(), "PATH": f"{installed.bin}{os.pathsep}{os.environ['PATH']}"}
        env.pop("PYTHONPATH", None)
        done = subprocess.run(
            [*process, "--config-file", "two.yaml", *keys],
            cwd=installed.folder,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "processes: 2, started by torchrun" in (installed.folder / words[0] / "log.txt").read_text()
        assert (installed.folder / words[0] / "model_final.pth").is_file()
