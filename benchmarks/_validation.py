"""The validation images, and a review session on each as the shipped model leaves it to a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg.core.field_cache import FieldCache
from napari_nucseg.core.nuclei import NucleusClass
from napari_nucseg.inference import collect, make_plan, run
from napari_nucseg.io.slide import Mpp
from napari_nucseg.session import Session
from train.data import AnnotatedImage, load_image
from train.evaluate import Selection, Wanted, schemes_for, select
from train.scores import Scheme

if TYPE_CHECKING:
    from napari_nucseg.models.card import Card
    from napari_nucseg.models.runtime import Runtime


@dataclass(frozen=True)
class Case:
    """An annotated image and a session on the model's answer for it.

    Attributes
    ----------
    scheme : Scheme or None
        In which its classes are compared; None where it has none.
    """

    item: AnnotatedImage
    session: Session
    scheme: Scheme | None


def open_session(item: AnnotatedImage, runtime: Runtime, card: Card) -> Session:
    """Segment an image as a user would, and begin to review it."""
    plan = make_plan(item.image, runtime, card, mpp=Mpp(item.mpp, f"the data set {item.dataset}"))
    fields = FieldCache(plan.grid.shape, len(card.classes))
    result = collect(run(plan, fields.put), plan)
    classes = [NucleusClass(name, card.colours[name]) for name in card.classes]
    return Session.from_table(result.labels, result.nuclei, classes, plan.image.scale, plan.decode, fields)


def validation(data: Path, name: str, config: Path, limit: int | None = None) -> Selection:
    """Choose the images of a data set that were held out of the training."""
    return select(Wanted(data / name, "train", config, limit))


def cases(chosen: Selection, runtime: Runtime, card: Card) -> Iterator[Case]:
    """Yield a session on every chosen image."""
    schemes = schemes_for(chosen, card.classes)
    scheme = next((s for s in schemes if s.classes == card.classes), None)
    config = replace(chosen.config, merge=scheme.merge if scheme else None)
    for listed in chosen.items:
        classes = scheme.classes if scheme else ()
        item = load_image(chosen.folder, listed.split, listed.name, config, classes)
        yield Case(item, open_session(item, runtime, card), scheme)
