"""Make the pictures of docs/review.md: a review of a public slide in the real window, by real mouse and key events.

xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/review_screenshots.py [--slide PATH] [--output FOLDER]

The slide is CMU-1-Small-Region (OpenSlide test data, CC0); it is downloaded where it isn't given. It is copied to a
temporary folder first, so that the review, which is saved beside its image, leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import napari
from napari.settings import get_settings
from PIL import Image
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QImage
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QMessageBox, QScrollArea

from napari_nucseg._plugin.review_keeper import close_all, keeper_of
from napari_nucseg._plugin.sample import fetch_cmu1
from napari_nucseg._plugin.services import Services
from napari_nucseg._plugin.widget import NucSegWidget

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the hand on mouse and keyboard is that of the tests
LOG = logging.getLogger("review_screenshots")

SIZE = (1500, 920)
PIECE, GAP = 360, 10
"""Side of one of several pictures beside one another, and what is between them, in pixels."""

MOST_BYTES = 240_000
"""Of one picture."""

VIEW, CLOSE = ((2712, 690), 5.0), 14.0
"""What the first pictures show, and how close the others are, in pixels of the screen per micrometre."""

MISSED = (2768, 740)
TWO_IN_ONE, SECOND, FIRST = (2792, 598), (2790, 605), (2791, 594)
CUT_IN_TWO = (2246, 1006), (2258, 1010)
TOO_SMALL, STROKE = (2724, 713), ((2729, 712), (2733, 711), (2731, 714), (2725, 716), (2720, 715))
"""Nuclei of the slide, (row, column): what the network misses there is what the pictures show."""


class Desk:
    """The window, the panel and a hand; pictures of them."""

    def __init__(self, slide: Path, answers: Path) -> None:
        self.viewer = napari.Viewer(title="NucSeg")
        self.viewer.window.resize(*SIZE)
        [image] = self.viewer.open(slide, plugin="napari-nucseg")
        image.interpolation2d = "linear"  # pictures of a few nuclei are made of few pixels
        services = Services(
            ask_folder=lambda _parent, _title: answers,
            ask_geojson=lambda _parent: next(answers.glob("*.geojson")),
            session_base=lambda: None,
            remember_session_base=lambda _folder: None,
        )
        self.panel = NucSegWidget(self.viewer, services)
        self.viewer.window.add_dock_widget(self.panel, name="NucSeg", area="right")
        self.pieces: list[Image.Image] = []
        self.wait(2)

    def begin(self) -> None:
        """Take hold of the review that has begun."""
        from tests.plugin.hand import Hand

        self.review = self.panel.results.review
        self.session = self.review.session
        self.hand = Hand(self.viewer, self.review.labels)

    def wait(self, seconds: float = 0.3) -> None:
        """Let Qt work for a while."""
        QTest.qWait(int(seconds * 1000))

    def until(self, condition: Any, seconds: float = 600) -> None:
        """Let Qt work until something holds."""
        for _ in range(int(seconds * 20)):
            if condition():
                return
            self.wait(0.05)
        raise TimeoutError(f"not done within {seconds:.0f} s")

    def use(self, layer: Any, mode: str) -> None:
        """Choose a layer and its tool."""
        self.viewer.layers.selection.active = layer
        layer.mode = mode

    def centre(self, pixel: tuple[float, float]) -> tuple[float, float]:
        """Return the centre of the nucleus that covers a pixel."""
        record = self.session.record(self.session.at(*pixel))
        return float(record["y"]), float(record["x"])

    def look(self, pixel: tuple[float, float], zoom: float = CLOSE) -> None:
        """Bring a pixel to the middle."""
        self.hand.see(pixel, zoom=zoom)
        self.wait()

    def piece(self, pointer: tuple[float, float] | None = None) -> None:
        """Take a picture of the middle of the canvas, for a row of them; with a mouse pointer at a pixel."""
        canvas = self.viewer.window._qt_viewer.canvas.native
        picture = picture_of(canvas)
        if pointer is not None:
            spot = self.hand.at(pointer)
            draw_pointer(picture, spot.x(), spot.y())
        x, y = (picture.width - PIECE) // 2, (picture.height - PIECE) // 2
        self.pieces.append(picture.crop((x, y, x + PIECE, y + PIECE)))

    def row(self) -> Image.Image:
        """Return the pictures taken, side by side."""
        step = PIECE + GAP
        row = Image.new("RGB", (step * len(self.pieces) - GAP, PIECE), "white")
        for k, picture in enumerate(self.pieces):
            row.paste(picture, (k * step, 0))
        self.pieces.clear()
        return row

    def window(self, left: bool = False) -> Image.Image:
        """Return a picture of the window, by default without napari's controls at the left."""
        self.wait(0.5)
        picture = picture_of(self.viewer.window._qt_window)
        canvas = self.viewer.window._qt_viewer.canvas.native
        x = 0 if left else canvas.mapTo(self.viewer.window._qt_window, canvas.rect().topLeft()).x()
        bars = (24, 28)  # of menus and of napari's status
        return picture.crop((x, bars[0], picture.width, picture.height - bars[1]))

    def scroll_to(self, widget: Any) -> None:
        """Scroll the panel so that a part of it is at the top."""
        area = self.panel.findChild(QScrollArea)
        area.verticalScrollBar().setValue(widget.mapTo(area.widget(), widget.rect().topLeft()).y() - 8)
        self.wait()

    def panel_part(self, first: Any, last: Any) -> Image.Image:
        """Return a picture of the panel from one part to another."""
        self.wait(0.5)
        body = self.panel.findChild(QScrollArea).widget()
        top = first.mapTo(body, first.rect().topLeft()).y()
        bottom = last.mapTo(body, last.rect().bottomLeft()).y()
        picture = picture_of(body)
        return picture.crop((0, max(0, top - 8), picture.width, bottom + 8))


def picture_of(widget: Any) -> Image.Image:
    """Return what a widget shows."""
    pixels = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    raw = pixels.constBits().asstring(pixels.sizeInBytes())
    size = (pixels.width(), pixels.height())
    return Image.frombytes("RGB", size, raw, "raw", "RGB", pixels.bytesPerLine())


def draw_pointer(picture: Image.Image, x: float, y: float) -> None:
    """Draw an arrow whose tip is at (x, y)."""
    from PIL import ImageDraw

    shape = [(0, 0), (0, 26), (6, 21), (11, 31), (15, 29), (10, 19), (18, 19)]
    points = [(x + a, y + b) for a, b in shape]
    ImageDraw.Draw(picture).polygon(points, fill="white", outline="black", width=2)


def after_the_run(desk: Desk) -> Image.Image:
    """Segment the slide."""
    desk.panel.run()
    desk.until(lambda: not desk.panel.flow.controller.running)
    desk.begin()
    desk.look(*VIEW)
    return desk.window(left=True)


def click_to_segment(desk: Desk) -> Image.Image:
    """Click on a nucleus that the network has missed."""
    desk.panel.review.panel.click.click()
    desk.look(MISSED)
    desk.piece()
    desk.piece(MISSED)
    desk.hand.click(MISSED)
    desk.wait()
    desk.piece()
    return desk.row()


def split_and_drag(desk: Desk) -> Image.Image:
    """Click on the second of two nuclei in one outline, then drag the first centre to its place."""
    desk.look(TWO_IN_ONE)
    desk.piece(SECOND)
    start = desk.centre(TWO_IN_ONE)
    desk.hand.click(SECOND)
    desk.wait()
    desk.piece(start)
    desk.hand.key(Qt.Key.Key_Escape)
    desk.hand.drag(start, FIRST)
    desk.wait()
    desk.piece(FIRST)
    return desk.row()


def merge(desk: Desk) -> Image.Image:
    """Select the two parts of one nucleus and press M."""
    from tests.plugin.hand import PLAIN, SHIFT

    desk.use(desk.review.points, "select")
    first, second = (desk.centre(pixel) for pixel in CUT_IN_TWO)
    desk.look(((first[0] + second[0]) / 2, first[1]))
    desk.piece()
    for centre, modifiers in ((first, PLAIN), (second, SHIFT)):
        desk.hand.click(centre, modifiers)
    desk.wait()
    desk.piece(second)
    desk.hand.key("m")
    desk.wait()
    desk.piece()
    return desk.row()


def brush(desk: Desk) -> Image.Image:
    """Paint what is missing of a nucleus."""
    desk.use(desk.review.labels, "pan_zoom")
    desk.look(TOO_SMALL)
    desk.hand.key("l")
    desk.hand.click(TOO_SMALL)
    desk.wait()
    desk.piece(TOO_SMALL)
    desk.hand.key("p")
    desk.review.labels.brush_size = 7
    desk.hand.drag(TOO_SMALL, *STROKE)
    desk.wait()
    desk.piece()
    desk.use(desk.review.points, "select")
    return desk.row()


def queue(desk: Desk) -> Image.Image:
    """Go to the most doubtful nucleus."""
    desk.hand.key("n")
    desk.scroll_to(desk.panel.run_bar)
    return desk.window()


def filtered(desk: Desk) -> Image.Image:
    """Choose which nuclei to go through."""
    part = desk.panel.review.panel.filter
    part.fold.expand()
    part.kind.setCurrentIndex(part.kind.findText("inflammatory"))
    part.low.setValue(0.5)
    part.high.setValue(0.8)
    desk.wait()
    desk.hand.key("n")
    picture = desk.panel_part(desk.panel.review.panel.current, part)
    part.reset()
    part.fold.collapse()
    return picture


def keys(desk: Desk) -> Image.Image:
    """Show the keys."""
    desk.panel.review.panel.help_button.click()
    desk.wait()
    picture = picture_of(desk.review.actions._help)
    desk.review.actions.close()
    return picture


def from_qupath(desk: Desk, folder: Path) -> Image.Image:
    """Save, change the file as QuPath would, import it."""
    desk.panel.save_button.click()
    desk.until(lambda: desk.panel.run_bar.status.startswith("Saved"))
    [path] = folder.glob("*.geojson")
    content = json.loads(path.read_text(encoding="utf-8"))
    (top, left), pixels = VIEW[0], 120
    for feature in content["features"]:
        ring = feature["geometry"]["coordinates"][0]
        at_home = isinstance(ring[0][0], float | int)
        if at_home and abs(ring[0][1] - top) < pixels and left < ring[0][0] < left + pixels:
            feature["properties"]["classification"] = {"name": "Keratinocyte", "color": [255, 120, 220]}
    path.write_text(json.dumps(content), encoding="utf-8")
    desk.panel.review.panel.import_button.click()
    desk.until(lambda: desk.panel.run_bar.status.startswith("Imported"))
    desk.look(*VIEW)
    desk.scroll_to(desk.panel.run_bar)
    return desk.window()


def run_again(desk: Desk) -> Image.Image:
    """Press Run once more, and see what is asked."""
    taken: list[Image.Image] = []

    def answer() -> None:
        box = QApplication.activeModalWidget()
        if isinstance(box, QMessageBox):
            taken.append(picture_of(box))
            box.reject()
        else:
            QTimer.singleShot(200, answer)

    QTimer.singleShot(500, answer)
    desk.panel.run()
    return taken[0]


def resumed(slide: Path, folder: Path) -> Image.Image:
    """Open the image in a new window, where its review is offered."""
    desk = Desk(slide, folder)
    offer = desk.panel.files.offer
    desk.until(offer.isVisible)
    picture = desk.panel_part(desk.panel.run_bar, desk.panel.review.panel)
    desk.viewer.close()
    return picture


def review(slide: Path, folder: Path, save: Any) -> None:
    """Make one picture of each step."""
    desk = Desk(slide, folder)
    save("run", after_the_run(desk))
    steps = {"click": click_to_segment, "split": split_and_drag, "merge": merge, "brush": brush}
    steps |= {"queue": queue, "filter": filtered, "keys": keys}
    for name, step in steps.items():
        save(name, step(desk))
    save("qupath", from_qupath(desk, folder))
    save("again", run_again(desk))
    keeper = keeper_of(desk.review)
    if keeper is None or keeper.folder != slide.with_suffix(".nucseg"):
        raise RuntimeError("the review was not saved beside the image")
    desk.viewer.close()
    close_all()
    save("resume", resumed(slide, folder))


def main() -> None:
    """Review a slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slide", type=Path, help="CMU-1-Small-Region.svs; by default it is downloaded")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "review")
    args = parser.parse_args()
    get_settings().appearance.theme = "dark"
    args.output.mkdir(parents=True, exist_ok=True)

    def save(name: str, picture: Image.Image) -> None:
        flat = name in ("filter", "keys", "again", "resume")
        path = args.output / f"{name}.{'png' if flat else 'jpg'}"
        if flat:
            picture.quantize(64).save(path, optimize=True)
        for quality in () if flat else range(88, 50, -6):
            picture.save(path, quality=quality, optimize=True)
            if path.stat().st_size < MOST_BYTES:
                break
        LOG.warning("%s: %d kB", path, path.stat().st_size // 1000)

    with tempfile.TemporaryDirectory() as place:
        slide, answers = Path(place) / "CMU-1-Small-Region.svs", Path(place) / "results"
        answers.mkdir()
        shutil.copy(args.slide or fetch_cmu1(), slide)
        review(slide, answers, save)


if __name__ == "__main__":
    main()
