"""The Labels and the Points layer that show the results of one run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Labels, Points

from napari_nucseg._plugin.colouring import Look, labels_colormap, rgba
from napari_nucseg._plugin.images import image_id, placement

if TYPE_CHECKING:
    from napari_nucseg._plugin.compute import Request, Started
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.inference import TileResult

KEY = "napari_nucseg"
"""Key of the layers' metadata under which a run describes itself."""

CENTRE_UM = 1.8
"""Diameter of the dot on a centre."""

CONTOUR, OUTLINE_OPACITY, FILL_OPACITY = 2, 0.9, 0.45
"""Width of outlines in pixels of the image, and how opaque the two ways of drawing are to begin with."""

SMALL = 4_000_000
"""Pixels of an image up to which all labels are drawn anew as tiles come in. napari takes about 0.2 s per megapixel
for it, so in a larger one only the new tile is drawn, in one colour, and the classes' colours come at the end."""

PATIENCE = 4.0
"""Time between two updates of the view during a run, in units of what the last one took."""


def describe(image: Image, request: Request, started: Started) -> dict[str, Any]:
    """Return what a run writes into the metadata of its layers."""
    card = request.model.card
    return {
        "run": uuid.uuid4().hex,
        "image": image.name,
        "image_id": image_id(image),
        "model": card.name,
        "model_version": card.version,
        "classes": card.classes,
        "colours": dict(card.colours),
        "mpp": request.mpp.value,
        "mpp_source": request.mpp.source,
        "runtime": started.runtime,
        "device": request.device,
        "region": request.area.title,
        "settings": dict(request.settings),
        "edited": False,
        "centres_edited": False,
    }


class ResultLayers:
    """The layers of one run, their table, and how they are shown.

    Attributes
    ----------
    labels : napari.layers.Labels
        uint32, ids of `nuclei`.
    points : napari.layers.Points or None
        The centres; None once the user has removed them.
    nuclei : DataFrame
        See `napari_nucseg.inference.Result`; kept in the labels' metadata, so that a panel opened later finds it.
    look : Look
        How the layers are shown from the next `show` on.
    """

    def __init__(self, labels: Labels, points: Points | None) -> None:
        self.labels, self.points = labels, points
        self._pending: list[pd.DataFrame] = []
        self._shown_at, self._cost = 0.0, 0.0
        self.look = Look()
        self._coloured: tuple[str, frozenset[str], int] | None = None
        self._writing = False
        labels.events.paint.connect(self._on_edited)
        labels.events.data.connect(self._on_edited)
        if points is not None:
            points.events.data.connect(self._on_centres_edited)

    @classmethod
    def create(cls, image: Image, request: Request, started: Started) -> ResultLayers:
        """Make empty layers for a run, not yet in any viewer."""
        about = describe(image, request, started)
        place = placement(image)
        labels = Labels(
            np.zeros(started.shape, np.uint32),
            name=f"{image.name} nuclei",
            opacity=FILL_OPACITY,
            colormap=labels_colormap(Look(), np.zeros(0, np.int64), [], {}),
            metadata={KEY: {**about, "role": "nuclei", "nuclei": None}},
            **place,
        )
        points = Points(
            np.zeros((0, 2)),
            ndim=2,
            name=f"{image.name} centres",
            size=CENTRE_UM / (request.mpp.value or 1.0),
            border_width=0.1,
            border_color="white",
            metadata={KEY: {**about, "role": "centres"}},
            **place,
        )
        points.canvas_size_limits = (2, 12)
        return cls(labels, points)

    @property
    def about(self) -> dict[str, Any]:
        """What the run wrote of itself, see `describe`."""
        about: dict[str, Any] = self.labels.metadata[KEY]
        return about

    @property
    def nuclei(self) -> pd.DataFrame | None:
        """The table of the nuclei shown, None before the first tile."""
        table: pd.DataFrame | None = self.about["nuclei"]
        return table

    @property
    def edited(self) -> bool:
        """Whether the user has painted a label, or added, moved or deleted a centre."""
        return bool(self.about["edited"])

    @property
    def layers(self) -> list[Any]:
        """The layers, the lower first."""
        return [self.labels] if self.points is None else [self.labels, self.points]

    def belongs_to(self, image: Image) -> bool:
        """Whether these are results of an image."""
        return bool(self.about["image_id"] == image_id(image))

    def rename(self, image_name: str) -> None:
        """Name the layers after the image."""
        self.labels.name = f"{image_name} nuclei"
        if self.points is not None:
            self.points.name = f"{image_name} centres"

    def counts(self) -> dict[str, int]:
        """Return the number of nuclei of every class, those of count 0 included."""
        nuclei = self.nuclei
        found = {} if nuclei is None else nuclei["class"].value_counts().to_dict()
        return {name: int(found.get(name, 0)) for name in self.about["classes"]}

    def total(self) -> int:
        """Return the number of nuclei."""
        return 0 if self.nuclei is None else len(self.nuclei)

    def add(self, tile: TileResult) -> bool:
        """Take in a tile; return whether it is shown already, or waits for the next update of the view."""
        small = self.labels.data.size <= SMALL
        tile.paint(self.labels.data)  # not by the layer's own methods: a run is no edit to be undone
        if not small:
            _draw(self.labels, tile.box)
        self._pending.append(tile.nuclei)
        due = time.perf_counter() - self._shown_at >= PATIENCE * self._cost
        if due:
            self._update(colour_labels=small)
        return due

    def show(self, look: Look | None = None) -> None:
        """Show all that was taken in, and from now on in the given look."""
        self.look = look or self.look
        self._update(colour_labels=True)

    def _update(self, colour_labels: bool) -> None:
        began = time.perf_counter()
        with self._own_writes():
            self._take_in()
            self._colour_points()
            if colour_labels:
                self._colour_labels()
        self._shown_at = time.perf_counter()
        self._cost = self._shown_at - began

    def drop_points(self) -> None:
        """Forget the centres, which the user has removed."""
        self.points = None

    def _take_in(self) -> None:
        """Add the pending tables to the layers' features and to the points."""
        fresh = [table for table in self._pending if len(table)]
        if not fresh and (self.nuclei is not None or not self._pending):
            return
        new = pd.concat(fresh or self._pending[:1], ignore_index=True)
        self._pending.clear()
        known = self.nuclei
        nuclei = new if known is None else pd.concat([known, new], ignore_index=True)
        self.about["nuclei"] = nuclei
        self.labels.features = _hover_table(nuclei)
        if self.points is not None and len(new):
            self._append_points(self.points, new)

    @staticmethod
    def _append_points(points: Points, new: pd.DataFrame) -> None:
        before = points.features  # the user may have edited the points meanwhile: only add to them
        points.data = np.concatenate([points.data, new[["centre_y", "centre_x"]].to_numpy()])
        columns = new[["id", "class", "score", "area_um2"]]
        points.features = pd.concat([before, columns], ignore_index=True) if len(before) else columns
        points.selected_data = set()

    def _colour_labels(self) -> None:
        contour = CONTOUR if self.look.outlines else 0
        if self.labels.contour != contour:
            self.labels.contour = contour
            self.labels.opacity = OUTLINE_OPACITY if contour else FILL_OPACITY
        key = (self.look.by, self.look.hidden, self.total())
        if key == self._coloured:
            self.labels.refresh()
            return
        self._coloured = key
        nuclei = self.nuclei
        ids = np.zeros(0, np.int64) if nuclei is None else nuclei["id"].to_numpy()
        names = [] if nuclei is None else nuclei["class"].tolist()
        self.labels.colormap = labels_colormap(self.look, ids, names, self.about["colours"])

    def _colour_points(self) -> None:
        if self.points is not None and len(self.points.data):
            classes = self.points.features["class"].astype(str).to_numpy()
            self.points.face_color = rgba(self.about["colours"], classes.tolist())
            self.points.shown = ~np.isin(classes, list(self.look.hidden))

    @contextmanager
    def _own_writes(self) -> Iterator[None]:
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _on_edited(self, _event: Any = None) -> None:
        if not self._writing:
            self.about["edited"] = True

    def _on_centres_edited(self, _event: Any = None) -> None:
        if not self._writing:
            self.about["edited"] = self.about["centres_edited"] = True


def _draw(labels: Labels, box: Box) -> None:
    """Draw a part of a layer whose pixels were written, and that part alone.

    napari has no public way to do so; this is what its brush does once it has written. Where napari shows no
    plain 2-D slice of the pixels, the part is drawn at the next full update.
    """
    shown = labels._slice.image
    if labels._slice_input.ndisplay != 2 or not np.shares_memory(shown.raw, labels.data):
        return
    if labels.contour == 0:
        part = tuple(box.slices[axis] for axis in labels._slice_input.displayed)
        shown.view[part] = labels.colormap._data_to_texture(shown.raw[part])
    labels._accumulate_updated_slice(box.slices)
    labels._partial_labels_refresh()


def _hover_table(nuclei: pd.DataFrame) -> pd.DataFrame:
    """Return the features that napari shows under the cursor; row 0 stands for the background."""
    table = pd.DataFrame(
        {
            "index": nuclei["id"].to_numpy(np.int64),
            "class": nuclei["class"].to_numpy(object),
            "score": nuclei["score"].to_numpy(float).round(2),
            "area_um2": nuclei["area_um2"].to_numpy(float).round(1),
        }
    )
    background = pd.DataFrame({"index": [0], "class": [None], "score": [np.nan], "area_um2": [np.nan]})
    return pd.concat([background, table], ignore_index=True) if len(table) else background


def find_results(
    layers: Iterable[Any], image: Image | None, known: Collection[int] = ()
) -> list[ResultLayers]:
    """Return the results of an image among a viewer's layers, the topmost first.

    Parameters
    ----------
    known : collection of int
        `id` of the Labels layers to leave out; the others were made before this panel was opened.
    """
    if image is None:
        return []
    mark = image_id(image)
    own = [layer for layer in layers if _about(layer).get("image_id") == mark]
    points = {about["run"]: p for p in own if (about := _about(p)).get("role") == "centres"}
    return [
        ResultLayers(layer, points.get(_about(layer)["run"]))
        for layer in reversed(own)
        if isinstance(layer, Labels) and _about(layer).get("role") == "nuclei" and id(layer) not in known
    ]


def _about(layer: Any) -> dict[str, Any]:
    about = layer.metadata.get(KEY)
    return about if isinstance(about, dict) else {}
