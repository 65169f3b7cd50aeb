"""Set-up of the package; the metadata stands in pyproject.toml.

The scripts and configurations beside `engine/` are installed inside it, where `engine/shipped.py` finds them.

Every `engine/**/*.pyx` becomes an extension that is built where a C compiler is found. Each one has
a Python fallback, so an install without a compiler only prints a warning.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext


class OptionalBuildExt(build_ext):
    """Leaves an extension out whatever goes wrong; `optional` alone is not enough without `cc`."""

    def build_extension(self, ext: Extension) -> None:
        ext.optional = True  # cythonize drops it, and an editable install copies what is not optional
        try:
            super().build_extension(ext)
        except Exception as error:
            self.warn(f"{ext.name} is left out, its Python fallback is used: {error}")


def optional_extensions() -> list[Extension]:
    """The Cython extensions of the package; none when Cython is missing or fails."""
    extensions = [
        Extension(".".join(path.with_suffix("").parts), [path.as_posix()])
        for path in sorted(Path("engine").rglob("*.pyx"))
    ]
    if not extensions:
        return []
    try:
        from Cython.Build import cythonize

        return cythonize(extensions, build_dir="build", language_level="3")
    except Exception as error:
        print(f"warning: the Cython extensions are left out: {error}")
        return []


SHIPPED = {f"engine._shipped.{folder}": folder for folder in ("configs", "datasets", "demo", "tools")}

setup(
    packages=[*find_packages(include=["engine", "engine.*"]), *SHIPPED],
    package_dir=SHIPPED,
    ext_modules=optional_extensions(),
    cmdclass={"build_ext": OptionalBuildExt},
)
