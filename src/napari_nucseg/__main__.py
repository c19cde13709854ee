"""``python -m napari_nucseg`` is the command ``napari-nucseg``."""

from __future__ import annotations

from napari_nucseg.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
