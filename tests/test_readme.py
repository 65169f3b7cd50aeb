"""The commands and files that the texts name exist."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
TEXTS = ["README.md", "CONTRIBUTING.md", "datasets/README.md", "docs/deployment.md", "docs/detectors.md"]
HELP_SECONDS = 2.0  # of CPU, so that others on the machine do not count; the limit is one second on a usual machine


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def commands() -> list[str]:
    """All command lines of the texts, with continuation lines joined and without comments."""
    found = []
    for name in TEXTS:
        for block in blocks((REPOSITORY / name).read_text(), "(?:bash|sh)"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line for line in lines if line.strip() and not line.startswith("#")]
        inline = re.findall(r"`((?:make|python|torchrun) [^`\n]+)`", (REPOSITORY / name).read_text())
        found += inline
    return sorted(set(found))


def script_of(command: str) -> str | None:
    """The script of this repository that a command runs."""
    return next((word for word in command.split() if re.fullmatch(r"\w+/\w+\.py", word)), None)


@functools.cache
def help_of(script: str) -> tuple[str, float]:
    """The help text of a script and the CPU seconds that it took, best of up to three."""
    seconds = []
    while not seconds or (seconds[-1] > HELP_SECONDS and len(seconds) < 3):
        before = os.times()
        result = subprocess.run(
            [sys.executable, script, "--help"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        after = os.times()
        took = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append(took)
        assert result.returncode == 0, result.stderr
    return result.stdout, min(seconds)


def scripts() -> list[str]:
    named = {script_of(command) for command in commands()} - {None}
    present = [f"{p.parent.name}/{p.name}" for d in ("tools", "demo") for p in (REPOSITORY / d).glob("*.py")]
    return sorted(named | set(present))


@pytest.mark.parametrize("script", scripts())
def test_script_answers_help_at_once(script: str) -> None:
    text, seconds = help_of(script)
    assert "usage:" in text
    assert seconds < HELP_SECONDS


@pytest.mark.parametrize("command", commands())
def test_command_exists(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    script = script_of(command)
    if script:
        known = set(re.findall(r"--[a-z][a-z-]*", help_of(script)[0]))
        after = words[words.index(script) + 1 :]
        assert {word for word in after if word.startswith("--")} <= known
    for word in words:
        if re.fullmatch(r"configs/\S+\.yaml", word) and "my_" not in word:
            assert (REPOSITORY / word).is_file(), word


@pytest.mark.parametrize("name", TEXTS)
def test_paths_exist(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    base = (REPOSITORY / name).parent
    missing = [link for link in links if link and "://" not in link and not (base / link).exists()]
    assert not missing
    quoted = re.findall(r"`((?:configs|engine|docs|tools|demo|tests)/[\w./-]+)`", text)
    real = [path for path in quoted if path == path.lower() or path.endswith(".yaml")]
    assert not [q for q in real if "my_" not in q and not (REPOSITORY / q).exists()]


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize(
    "name", sorted({*TEXTS, *(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))})
)
def test_headings_that_links_name_exist(name: str) -> None:
    page = REPOSITORY / name
    links = re.findall(r"\]\(([^)\s:#]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert not [
        (path, heading) for path, heading in links if heading not in headings(page.parent / path if path else page)
    ]


@pytest.mark.parametrize("name", TEXTS)
def test_yaml_blocks_are_configurations(name: str, tmp_path: Path) -> None:
    from engine import get_cfg

    for k, block in enumerate(blocks((REPOSITORY / name).read_text(), "yaml")):
        path = tmp_path / f"{k}.yaml"
        path.write_text(block.replace("_BASE_: ", f"_BASE_: {REPOSITORY}/configs/"))
        get_cfg().merge_from_file(str(path))
