"""Make docs/screenshot.png: the real napari window with an H&E image, segmented by the shipped model.

xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/screenshot.py [--image PATH --mpp M] [--output PNG]
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

from napari.settings import get_settings
from napari.utils.theme import available_themes
from qtpy.QtWidgets import QApplication

from napari_nucseg._plugin.demo import make_demo

LOG = logging.getLogger("screenshot")
OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "screenshot.png"


def wait(until: Any, seconds: float) -> None:
    """Let Qt work until something holds."""
    end = time.monotonic() + seconds
    while not until():
        QApplication.processEvents()
        time.sleep(0.01)
        if time.monotonic() > end:
            raise TimeoutError(f"not done within {seconds:.0f} s")


def pause(seconds: float) -> None:
    """Let Qt work for a while."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end, seconds + 5)


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--image", type=Path, help="an H&E image; the synthetic sample by default")
    parser.add_argument("--mpp", type=float, help="its micrometres per pixel")
    parser.add_argument("--model", type=Path, help="folder of a model; the shipped one by default")
    parser.add_argument("--theme", default="dark", choices=available_themes())
    parser.add_argument("--zoom", type=float, default=1.0, help="magnify the view about its centre")
    parser.add_argument("--size", type=int, nargs=2, default=(1500, 920), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--filled", action="store_true", help="filled labels in place of outlines")
    parser.add_argument("--before", action="store_true", help="do not segment")
    return parser.parse_args()


def main() -> None:
    """Open the window, segment, save a picture of it."""
    args = arguments()
    get_settings().appearance.theme = args.theme
    viewer, panel = make_demo(args.image, args.mpp)
    viewer.window.resize(*args.size)
    if args.model is not None:
        panel.model.add(args.model)
    pause(3)
    viewer.reset_view()
    if not args.before:
        if args.filled:
            panel.legend.set_outlines(False)
        panel.run()
        wait(lambda: not panel.flow.controller.running, 600)
        viewer.reset_view()
        viewer.scene.camera.zoom *= args.zoom
    pause(2)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    viewer.window.screenshot(str(args.output), size=None, flash=False, canvas_only=False)
    LOG.warning("%s: %s", args.output, panel.run_bar.status)
    viewer.close()


if __name__ == "__main__":
    main()
