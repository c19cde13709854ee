"""Environments for programs that must not share ours: made once, kept in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

STARDIST = ("stardist", "tensorflow-cpu")

LONGEST_S = 1800.0
"""Time that an installation may take."""


class NotInstalled(Exception):
    """The packages cannot be had; the text says why."""


def environment(packages: tuple[str, ...], cache: Path | None = None) -> Path:
    """Return the Python of an environment with some packages from the package index, made if it is not there.

    Parameters
    ----------
    packages
        As given to pip.
    cache
        Folder of the environments; one in the user's cache by default.

    Raises
    ------
    NotInstalled
        With the last thing that pip said.
    """
    if cache is None:
        from platformdirs import user_cache_path

        cache = user_cache_path("napari-nucseg", appauthor=False) / "benchmarks"
    key = hashlib.sha256(repr((packages, sys.version_info[:2])).encode()).hexdigest()[:12]
    folder = cache / f"{packages[0]}-{key}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / "complete"
    if done.is_file() and python.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"Installing {' and '.join(packages)} into {folder} (once)", file=sys.stderr, flush=True)
    call([sys.executable, "-m", "venv", str(folder)])
    call([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *packages])
    done.touch()
    return python


def call(command: list[str], longest: float = LONGEST_S) -> None:
    """Run a program; `NotInstalled` with the last line of its complaint if it fails or takes too long."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=longest)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"took longer than {longest:.0f} s") from error
    except subprocess.CalledProcessError as error:
        raise NotInstalled(last_line(error.stderr) or f"ended with {error.returncode}") from error


def last_line(text: str) -> str:
    """Return the last line with something in it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
