"""Set-up of the package; the metadata stands in pyproject.toml.

Every `engine/**/*.pyx` becomes an extension that is built where a C compiler is found. Each one has
a Python fallback, so an install without a compiler only prints a warning.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup


def optional_extensions() -> list[Extension]:
    """The Cython extensions of the package; none when Cython is missing or fails."""
    sources = sorted(Path("engine").rglob("*.pyx"))
    extensions = [
        Extension(".".join(path.with_suffix("").parts), [path.as_posix()], optional=True)
        for path in sources
    ]
    if not extensions:
        return []
    try:
        from Cython.Build import cythonize

        return cythonize(extensions, language_level="3")
    except Exception as error:  # the fallback is always there: an install must not fail here
        print(f"warning: the Cython extensions are left out: {error}")
        return []


setup(ext_modules=optional_extensions())
