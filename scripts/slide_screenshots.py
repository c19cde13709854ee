"""Make the pictures of docs/slides.md: a whole slide with its results, and a region of it under review.

xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/slide_screenshots.py --slide PATH [--output FOLDER]

The slide of the guide is CMU-1-Small-Region (OpenSlide test data, CC0), which is dealt with as the large ones are, for
the sake of the pictures. Results go to a temporary folder.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from napari.settings import get_settings
from review_screenshots import Desk

from napari_nucseg._plugin import place as places
from napari_nucseg._plugin.review_keeper import close_all
from napari_nucseg._plugin.slide_results import slides_in

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the hand on mouse and keyboard is that of the tests
LOG = logging.getLogger("slide_screenshots")

MOST_BYTES = 390_000
"""Of one picture."""


def main() -> None:
    """Segment a slide, take a picture of it, review a region, take a picture of that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "slides")
    parser.add_argument("--at", type=int, nargs=2, default=(2600, 690), metavar=("ROW", "COLUMN"))
    args = parser.parse_args()
    get_settings().appearance.theme = "dark"
    args.output.mkdir(parents=True, exist_ok=True)
    places.LARGE = 0  # also a small slide is one
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        desk = Desk(args.slide, Path(place))
        image = desk.viewer.layers[0]
        image.metadata["napari_nucseg_folder"] = str(Path(place) / f"{args.slide.stem}_nucseg")
        desk.panel.run()
        desk.until(lambda: not desk.panel.slides.run.running, 3600)
        [layers] = slides_in(desk.viewer.layers)
        layers.layers[-1].visible = False  # centres are for the closer look
        desk.panel.slides.box.legend.set_outlines(False)
        desk.viewer.reset_view()
        desk.wait(5)
        desk.until(lambda: layers.is_resting)
        desk.scroll_to(desk.panel.run_bar)
        save(args.output / "whole.jpg", desk)

        from tests.plugin.hand import Hand

        layers.layers[-1].visible = True
        desk.panel.slides.box.legend.set_outlines(True)
        hand = Hand(desk.viewer, image)
        hand.see(tuple(args.at), zoom=3)
        desk.until(lambda: layers.is_resting)
        desk.panel.slides.box.review_button.click()
        desk.until(lambda: desk.panel.slides.review.is_open and desk.panel.slides.busy is None)
        for key in "naaa":
            hand.key(key)
            desk.wait()
        desk.scroll_to(desk.panel.run_bar)
        save(args.output / "review.jpg", desk)
        desk.viewer.close()
        close_all()


def save(path: Path, desk: Desk) -> None:
    """Save a picture of the window."""
    picture = desk.window(left=True)
    for quality in range(88, 40, -6):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size < MOST_BYTES:
            break
    LOG.warning("%s: %d kB; %s", path, path.stat().st_size // 1000, desk.panel.run_bar.status)


if __name__ == "__main__":
    main()
