"""What is freed between small things that stay goes back to the system."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from napari_nucseg.slides import heap


def resident_mb() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) // 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory")
def test_memory_between_small_things_is_given_back():
    pieces = [(bytearray(b"x" * 100_000), bytearray(b"y" * 600)) for _ in range(3000)]
    full = resident_mb()
    small = [piece[1] for piece in pieces]
    del pieces
    heap.trim()
    assert resident_mb() < full - 200
    assert len(small) == 3000


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap, "_malloc_trim", lambda: None)
    heap.trim()
