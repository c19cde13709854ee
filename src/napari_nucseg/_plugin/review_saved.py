"""Reviews that were saved before: found, offered, and opened again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg._plugin import work
from napari_nucseg._plugin.compute import Basis, Request, Started, make_basis
from napari_nucseg._plugin.flow import report_error
from napari_nucseg._plugin.images import level0_shape
from napari_nucseg._plugin.place import from_list
from napari_nucseg._plugin.regions import Area
from napari_nucseg._plugin.results import KEY, ResultLayers
from napari_nucseg._plugin.review_keeper import Keeper, kept_folders
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import Mpp

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image

    from napari_nucseg._plugin.review import Review
    from napari_nucseg._plugin.services import Services
    from napari_nucseg.core.decode import DecodeConfig
    from napari_nucseg.io.session_format import Snapshot
    from napari_nucseg.io.session_store import SessionStore
    from napari_nucseg.session import Session


@dataclass(frozen=True)
class Opened:
    """A saved review, read in a worker.

    Attributes
    ----------
    store : SessionStore or None
        None for one that was rescued from a damaged folder.
    notes : tuple of str
        What could not be rescued.
    """

    snapshot: Snapshot
    store: SessionStore | None
    notes: tuple[str, ...] = ()


def image_path(image: Image) -> Path | None:
    """Return the file of an image layer, if it has one."""
    path = image.source.path
    return Path(path) if path else None


def described_path(review: Review) -> Path | None:
    """Return the file of the image that a review was made on, if it has one; the layer may be gone."""
    path = review.labels.metadata[KEY].get("path")
    return Path(path) if path else None


def describe_for_file(review: Review) -> dict[str, Any]:
    """Return what a session's file says besides its nuclei, see `io.session_format.Snapshot`."""
    path, about, request = described_path(review), review.labels.metadata[KEY], review.request
    exists = path is not None and path.is_file()
    card = None if request is None else request.model.card
    return {
        "image": {
            "name": about["image"],
            "path": None if path is None else str(path.absolute()),
            "bytes": path.stat().st_size if exists and path is not None else None,
        },
        "mpp": about["mpp"],
        "mpp_source": about["mpp_source"],
        "model": {
            "name": about["model"],
            "version": about["model_version"],
            "sha256": "" if card is None else card.sha256,
        },
        "model_shape": list(review.session.scale.model),
        "decoder": asdict(review.session.ground.config),
        "settings": dict(about["settings"]),
        "place": about.get("place"),
        "image_shape": about.get("image_shape"),
        "region": about.get("region"),
    }


class Archive:
    """Finds, opens and keeps saved reviews; the listener that gives every review its `Keeper`.

    Parameters
    ----------
    services : Services
    say : callable (text, alarm)
    """

    def __init__(self, services: Services, say: Callable[[str, bool], None]) -> None:
        self._services, self._say = services, say
        self._opened: dict[int, Opened] = {}
        self._worker: Any = None

    def find(self, image: Image | None) -> list[Path]:
        """Return the folders of the saved reviews of an image that are not open, the likeliest first."""
        from napari_nucseg.io.session_places import find_sessions

        if image is None:
            return []
        try:
            found = find_sessions(
                image_path(image), image.name, level0_shape(image), self._services.session_base()
            )
        except OSError:  # a folder that can't be looked into offers nothing
            return []
        return [folder for folder in found if folder not in kept_folders()]

    @staticmethod
    def mpp(folder: Path) -> Mpp:
        """Return the resolution at which a saved review was made; unknown where it can't be read."""
        from napari_nucseg.io.session_format import read_manifest

        try:
            value = read_manifest(folder).about.get("mpp")
            return Mpp() if value is None else Mpp.stated(value, "the saved review")
        except NucSegError:  # opening it will say why
            return Mpp()

    def keep(self, review: Review) -> Keeper:
        """Have a review saved from now on."""
        opened = self._opened.pop(id(review.session), None)
        keeper = Keeper(
            review,
            describe_for_file(review),
            lambda: self.new_folder(review, self._services.session_base()),
            None if opened is None or opened.store is None else (opened.store, opened.snapshot),
        )
        review.listeners.append(keeper)
        if opened is not None and opened.store is None:
            keeper.save_now()
        return keeper

    @staticmethod
    def new_folder(review: Review, base: Path | None) -> Path:
        """Return a free folder for a review, in the folder of the user's choice."""
        from napari_nucseg.io.session_places import default_folder, free_name, is_writable

        own = review.labels.metadata[KEY].get("review_folder")
        if own is not None:
            with suppress(OSError):  # on a disk that is read alone it is kept where reviews of images are
                Path(own).parent.mkdir(parents=True, exist_ok=True)
                if is_writable(Path(own).parent):
                    return free_name(Path(own))
        return default_folder(described_path(review), review.labels.metadata[KEY]["image"], base)

    def open(self, folder: Path, image: Image, done: Callable[[Opened], None], parent: Any = None) -> None:
        """Read a saved review in a worker; `done` gets it in the thread of the window."""
        self._say(f"Opening the review in {folder}…", False)
        reading = partial(self._on_opened, folder, image, done, parent)
        self._worker = work.start(partial(_open, folder, shape_of(folder, image)), reading)

    def _on_opened(
        self,
        folder: Path,
        image: Image,
        done: Callable[[Opened], None],
        parent: Any,
        outcome: work.Outcome,
    ) -> None:
        from napari_nucseg.io.session_files import SessionDamaged

        self._worker, error = None, outcome.error
        if isinstance(error, SessionDamaged) and self._services.ask_salvage(parent, str(error)):
            self._say("Rescuing what can be read…", False)
            reading = partial(self._on_opened, folder, image, done, parent)
            self._worker = work.start(partial(_salvage, folder, shape_of(folder, image)), reading)
        elif error is not None:
            self._say(report_error(error), True)
        else:
            done(outcome.value)

    def expect(self, session: Session, opened: Opened) -> None:
        """Say that the review of this session, which is about to begin, was opened from a folder."""
        self._opened[id(session)] = opened


def shape_of(folder: Path, image: Image) -> tuple[int, int]:
    """Return the shape that the labels of a saved review of an image must have."""
    from napari_nucseg.io.session_format import read_manifest

    with suppress(NucSegError):  # opening it will say why
        about = read_manifest(folder).about
        place = from_list(about.get("place"))
        if place is not None and about.get("image_shape") == list(level0_shape(image)):
            return place.shape
    return level0_shape(image)


def _open(folder: Path, shape: tuple[int, int]) -> Opened:
    from napari_nucseg.io.session_store import SessionStore

    store, snapshot = SessionStore.open(folder, shape)
    return Opened(snapshot, store)


def _salvage(folder: Path, shape: tuple[int, int]) -> Opened:
    from napari_nucseg.io.session_read import salvage

    snapshot, notes = salvage(folder)
    if snapshot.labels.shape != shape:
        raise NucSegError(
            f"The review in '{folder}' is of an image of {snapshot.labels.shape} pixels and this one has {shape}; "
            "open the image that it was made for."
        )
    return Opened(snapshot, None, tuple(notes))


def request_for(opened: Opened, request: Request, models: Any) -> Request | None:
    """Return a request that makes the maps which a saved review was made with; None if its model is not there."""
    about = opened.snapshot.about
    wanted = about.get("model") or {}
    for model in (request.model, *models.values()):
        card = model.card
        if (card.name, card.version) == (wanted.get("name"), wanted.get("version")):
            mpp = about.get("mpp")
            stated = request.mpp if mpp is None else Mpp.stated(mpp, "saved review")
            settings = about.get("settings") or {}
            place, title = from_list(about.get("place")), about.get("region") or "region"
            return replace(
                request,
                model=model,
                mpp=stated,
                settings=dict(settings),
                fields=None,
                place=place,
                area=request.area if place is None else Area(place, (), title),
            )
    return None


def saved_config(snapshot: Snapshot) -> DecodeConfig:
    """Return the decoder's settings of a saved review, as far as this version knows them."""
    from napari_nucseg.core.decode import DecodeConfig

    known = {field.name for field in dataclass_fields(DecodeConfig)}
    saved = snapshot.about.get("decoder") or {}
    return DecodeConfig(**{name: value for name, value in saved.items() if name in known})


def saved_basis(snapshot: Snapshot) -> Basis:
    """Return what the session of a saved review needs, as its model had it, which is not there."""
    from napari_nucseg.core.field_cache import FieldCache
    from napari_nucseg.core.scale import Scale

    shape = snapshot.labels.shape
    rows, cols = snapshot.about.get("model_shape") or shape
    scale = Scale((shape[0], shape[1]), (int(rows), int(cols)))
    return Basis(scale, saved_config(snapshot), FieldCache(scale.model, snapshot.n_model_classes))


def on_one_scale(basis: Basis, snapshot: Snapshot) -> Basis:
    """Return a basis that reports scores as a saved review has them; the model may have been calibrated since."""
    from napari_nucseg.core.calibration import NEUTRAL

    saved = saved_config(snapshot)
    return replace(basis, config=replace(basis.config, **{name: getattr(saved, name) for name in NEUTRAL}))


def restore(
    opened: Opened, image: Image, request: Request, usable: Request | None
) -> tuple[ResultLayers, Session]:
    """Make the layers and the session of a saved review.

    Parameters
    ----------
    request : Request
        What the panel says now.
    usable : Request or None
        See `request_for`.

    Raises
    ------
    NucSegError
        The image is not the one that the review was made for.
    """
    from napari_nucseg.session import Session

    snapshot = opened.snapshot
    labels = np.ascontiguousarray(snapshot.labels)
    basis = saved_basis(snapshot) if usable is None else on_one_scale(make_basis(usable), snapshot)
    session = Session(labels, snapshot.records, snapshot.classes, basis.scale, basis.config, basis.fields)
    about = snapshot.about
    place = from_list(about.get("place"))
    if place is not None:
        title = about.get("region") or "region"
        request = replace(request, place=place, area=Area(place, (), title))
    results = ResultLayers.create(image, usable or request, Started((1, 1), "", 0, None))
    results.labels.data = labels
    model = about.get("model") or {}
    results.about.update(
        mpp=about.get("mpp") or results.about["mpp"],
        mpp_source=about.get("mpp_source") or results.about["mpp_source"],
        model=model.get("name") or results.about["model"],
        model_version=model.get("version") or results.about["model_version"],
        settings=about.get("settings") or {},
        classes=tuple(c.name for c in snapshot.classes),
        colours={c.name: tuple(c.colour) for c in snapshot.classes},
    )
    return results, session
