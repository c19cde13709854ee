"""The Labels and the Points layer that show the results of one run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Labels, Points

from napari_nucseg._plugin.colouring import NO_CLASS, UNKNOWN, Look, NucleusColormap, rgba
from napari_nucseg._plugin.drawing import draw, draw_palette, quick_contours, redraw
from napari_nucseg._plugin.images import image_id, level0_shape, placement
from napari_nucseg._plugin.place import as_list, from_list

if TYPE_CHECKING:
    from napari_nucseg._plugin.compute import Request, Started
    from napari_nucseg._plugin.review import Review
    from napari_nucseg.core.tiling import Box
    from napari_nucseg.inference import TileResult

KEY = "napari_nucseg"
"""Key of the layers' metadata under which a run describes itself."""

CENTRE_UM = 1.8
"""Diameter of the dot on a centre."""

CONTOUR, OUTLINE_OPACITY, FILL_OPACITY = 2, 0.9, 0.45
"""Width of outlines in pixels of the image, and how opaque the two ways of drawing are to begin with."""

HOVER = ("id", "class", "score", "area_um2")
"""Columns of the table of nuclei that are shown under the cursor."""

REVIEW = "napari_nucseg_review"
"""Key of the labels' metadata under which the review of them is kept, for panels that are opened later."""

PATIENCE = 4.0
"""Time between two updates of centres and table during a run, in units of what the last one took."""


def describe(image: Image, request: Request, started: Started) -> dict[str, Any]:
    """Return what a run writes into the metadata of its layers; the image may be gone when it ends."""
    card = request.model.card
    return {
        "run": uuid.uuid4().hex,
        "image": image.name,
        "path": image.source.path,
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
        "place": as_list(request.place),
        "image_shape": list(level0_shape(image)),
        "settings": dict(request.settings),
    }


def name_for(image_name: str, about: dict[str, Any]) -> str:
    """Return how layers of an image begin their names; those of a part of it say so."""
    return image_name if about.get("place") is None else f"{image_name} {about['region']}"


class ResultLayers:
    """The layers of one run, their table, and how they are shown.

    During a run they grow tile by tile. Once it has ended a `Review` holds the nuclei, and the layers are views of it.

    Attributes
    ----------
    labels : napari.layers.Labels
        uint32, ids of the nuclei.
    nuclei : DataFrame or None
        What the run has found, see `napari_nucseg.inference.Result`; kept in the labels' metadata.
    look : Look
        How the layers are shown from the next `show` on.
    """

    def __init__(self, labels: Labels, points: Points | None) -> None:
        self.labels, self._points = labels, points
        self._pending: list[pd.DataFrame] = []
        self._shown_at, self._cost = 0.0, 0.0
        self.look = Look()

    @classmethod
    def create(cls, image: Image, request: Request, started: Started) -> ResultLayers:
        """Make empty layers for a run, not yet in any viewer."""
        about = describe(image, request, started)
        named = name_for(image.name, about)
        colormap = NucleusColormap()
        colormap.set_look(Look(), about["colours"], about["classes"])
        labels = Labels(
            np.zeros(started.shape, np.uint32),
            name=f"{named} nuclei",
            opacity=FILL_OPACITY,
            colormap=colormap,
            metadata={KEY: {**about, "role": "nuclei", "nuclei": None}},
            **placement(image, request.place),
        )
        quick_contours(labels)
        return cls(labels, make_points(labels, f"{named} centres", about))

    @property
    def about(self) -> dict[str, Any]:
        """What the run wrote of itself, see `describe`."""
        about: dict[str, Any] = self.labels.metadata[KEY]
        return about

    @property
    def nuclei(self) -> pd.DataFrame | None:
        """The table of the nuclei that the run found, None before the first tile."""
        table: pd.DataFrame | None = self.about["nuclei"]
        return table

    @property
    def place(self) -> Box | None:
        """The part of the image that the labels are of; None: all of it."""
        return from_list(self.about.get("place"))

    @property
    def review(self) -> Review | None:
        """The review of these nuclei; None during a run. A copy of the layer, made by napari, has none."""
        review: Review | None = self.labels.metadata.get(REVIEW)
        return review if review is not None and review.session.labels is self.labels.data else None

    @property
    def points(self) -> Points | None:
        """The centres; None once the user has removed them."""
        return self._points if self.review is None else self.review.points

    @property
    def edits(self) -> int:
        """Number of nuclei that a person has dealt with, those included that wait for maps."""
        return 0 if self.review is None else self.review.reviewed() + self.review.edits.waiting

    @property
    def edited(self) -> bool:
        """Whether a person has dealt with a nucleus."""
        return self.edits > 0

    @property
    def layers(self) -> list[Any]:
        """The layers, the lower first."""
        return [self.labels] if self.points is None else [self.labels, self.points]

    def belongs_to(self, image: Image) -> bool:
        """Whether these are results of an image."""
        return bool(self.about["image_id"] == image_id(image))

    def rename(self, image_name: str) -> None:
        """Name the layers after the image."""
        named = name_for(image_name, self.about)
        self.labels.name = f"{named} nuclei"
        if self.points is not None:
            self.points.name = f"{named} centres"

    def colours(self) -> dict[str, tuple[int, ...]]:
        """Return the colour of every class; one stands for nuclei without a class, where there are any."""
        known = {name: tuple(rgb) for name, rgb in self.about["colours"].items()}
        red, green, blue, _ = (int(255 * part) for part in UNKNOWN)
        return {**known, NO_CLASS: (red, green, blue)} if NO_CLASS in self.counts() else known

    def counts(self) -> dict[str, int]:
        """Return the number of nuclei of every class, those of count 0 included."""
        if self.review is not None:
            return self.review.counts()
        nuclei = self.nuclei
        found = {} if nuclei is None else nuclei["class"].value_counts().to_dict()
        return {name: int(found.get(name, 0)) for name in self.about["classes"]}

    def total(self) -> int:
        """Return the number of nuclei."""
        return sum(self.counts().values())

    def add(self, tile: TileResult) -> bool:
        """Take in a tile; return whether its centres are shown already, or wait for the next update."""
        tile.paint(self.labels.data)  # not by the layer's own methods: a run is no edit to be undone
        kinds = pd.Index(self.about["classes"]).get_indexer(tile.nuclei["class"])
        colormap_of(self.labels).set_kinds(tile.nuclei["id"].to_numpy(), kinds)
        draw(self.labels, tile.box)
        self._pending.append(tile.nuclei)
        due = time.perf_counter() - self._shown_at >= PATIENCE * self._cost
        if due:
            self._update()
        return due

    def catch_up(self) -> None:
        """Show the centres of the tiles that wait for the next update."""
        if self._pending:
            self._update()

    def show(self, look: Look | None = None) -> None:
        """Show all that was taken in, and from now on in the given look."""
        self.look = look or self.look
        self._colour_labels()
        self._update()

    def _update(self) -> None:
        began = time.perf_counter()
        if self.review is not None:
            self.review.show_points(self.look)
        else:
            self._take_in()
            self._colour_points()
        self._shown_at = time.perf_counter()
        self._cost = self._shown_at - began

    def drop_points(self) -> None:
        """Forget the centres, which the user has removed."""
        self._points = None

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
        self.labels.features = hover_table(*(nuclei[name].to_numpy() for name in HOVER))
        if self.points is not None and len(new):
            editable = self.points.editable
            self.points.data = nuclei[["centre_y", "centre_x"]].to_numpy()
            self.points.editable = editable  # which napari has set anew
            self.points.features = nuclei[["id", "class", "score", "area_um2"]]
            self.points.selected_data = set()

    def _colour_labels(self) -> None:
        labels, colormap = self.labels, colormap_of(self.labels)
        contour = CONTOUR if self.look.outlines else 0
        mapped = colormap.set_look(self.look, self.about["colours"], self.about["classes"])
        if labels.colormap is not colormap:
            labels.colormap = colormap
        if labels.contour != contour:
            labels.contour = contour
            labels.opacity = OUTLINE_OPACITY if contour else FILL_OPACITY
        elif mapped:
            redraw(labels)
        draw_palette(labels)

    def _colour_points(self) -> None:
        if self.points is not None and len(self.points.data):
            classes = self.points.features["class"].astype(str).to_numpy()
            self.points.face_color = rgba(self.about["colours"], classes.tolist())
            self.points.shown = ~np.isin(classes, list(self.look.hidden))


def make_points(under: Any, name: str, about: dict[str, Any]) -> Points:
    """Make an empty layer for centres.

    Parameters
    ----------
    under : Layer
        On whose pixels the centres lie.
    name : str
    about : dict
        See `describe`.
    """
    points = Points(
        np.zeros((0, 2)),
        ndim=2,
        name=name,
        size=CENTRE_UM / (about["mpp"] or 1.0),
        border_width=0.1,
        border_color="white",
        metadata={KEY: {**about, "role": "centres"}},
        **placement(under),
    )
    points.canvas_size_limits = (2, 12)
    return points


def colormap_of(labels: Labels) -> NucleusColormap:
    """Return our colormap of a layer, which napari remembers when the user has chosen its own colours instead."""
    for known in (labels.colormap, labels._direct_colormap):
        if isinstance(known, NucleusColormap):
            return known
    return NucleusColormap()


def hover_table(ids: Any, names: Any, scores: Any, areas: Any) -> pd.DataFrame:
    """Return the features that napari shows under the cursor; row 0 stands for the background.

    Parameters
    ----------
    ids, names, scores, areas : (n,) arrays
        Areas in square micrometres.
    """
    return pd.DataFrame(
        {
            "index": np.concatenate([[0], np.asarray(ids, np.int64)]),
            "class": np.concatenate([[None], np.asarray(names, object)]),
            "score": np.concatenate([[np.nan], np.asarray(scores, float).round(2)]),
            "area_um2": np.concatenate([[np.nan], np.asarray(areas, float).round(1)]),
        }
    )


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
    bare = [getattr(layer, "__wrapped__", layer) for layer in layers]  # napari hands panels proxies
    own = [layer for layer in bare if _about(layer).get("image_id") == mark]
    points = {about["run"]: p for p in own if (about := _about(p)).get("role") == "centres"}
    return [
        ResultLayers(layer, points.get(_about(layer)["run"]))
        for layer in reversed(own)
        if isinstance(layer, Labels) and _about(layer).get("role") == "nuclei" and id(layer) not in known
    ]


def _about(layer: Any) -> dict[str, Any]:
    about = layer.metadata.get(KEY)
    return about if isinstance(about, dict) else {}
