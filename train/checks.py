"""Checks of an annotated image before it is trained on: what it holds, and what looks wrong."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_nucseg.core.targets import IGNORE, split_parts
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import PLAUSIBLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from train.class_map import ClassMap, OpenClasses
    from train.readers import Raw

USUAL_UM = (3.5, 8.0)
"""Median diameters of the nuclei of a whole set, in micrometres. Published sets have 4 (CoNSeP, with many cut nuclei)
to 6.5, so that half or double the true mpp lies outside."""
POSSIBLE_UM = (2.0, 12.0)
"""That of a single image varies: lymphocytes cut at their rim have 2.5, large tumours 10."""
LEAST_UM2 = 4.0
"""Smaller nuclei are specks or slivers, in square micrometres; a lymphocyte has about 30."""
SPECKS = 0.25
"""A larger share of such nuclei is worth a warning; CoNSeP's images have some 4 %, and some of them 20 %."""
LEAST_SIDE = 64
MOST_NUCLEI = 65535
"""Labels are stored with 16 bit."""

LOOSE = "loose parts of nuclei, each learnt as a nucleus"
MIXED = "nuclei of several classes, given to the commonest"
UNKNOWN = "nuclei without a class"
SMALL = f"nuclei smaller than {LEAST_UM2:g} um2, taken as they are"

_ENOUGH = 5  # nuclei, for a median to mean something
_FLAT = 3.0  # standard deviation of the grey values of an image that shows nothing
_DIFFERENT = 0.1


@dataclass(frozen=True)
class Checked:
    """An image as it is to be written, with what was found.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    labels : uint16 (H, W) or None
        1..n in the order of the source's ids; None where nobody annotated the image.
    types : uint8 (H, W) or None
        0 background, 1..C target class, 255 unknown.
    counts : (C,) int64
        Nuclei per target class known so far.
    unknown : int
        Nuclei without a class.
    mpp : float
    mpp_source : str
    diameter_um : float
        Median; NaN without nuclei.
    digest : str
        Of the pixels: equal for equal images.
    warnings : tuple of str
        What looks wrong, a phrase each.
    notes : mapping
        What was decided or left out -> how often.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16] | None
    types: NDArray[np.uint8] | None
    counts: NDArray[np.int64]
    unknown: int
    mpp: float
    mpp_source: str
    diameter_um: float
    digest: str
    warnings: tuple[str, ...]
    notes: Mapping[str, int]

    @property
    def nuclei(self) -> int:
        """How many there are."""
        return 0 if self.labels is None else int(self.labels.max(initial=0))


def check(
    raw: Raw, classes: ClassMap | OpenClasses, mpp: float | None, where: str, form: str = ""
) -> Checked:
    """Check an image, number its nuclei from 1 and give them their target classes.

    Parameters
    ----------
    raw
        From a reader.
    classes
        What classes become.
    mpp
        Stated by the user; overrides what the source says.
    where
        For messages.
    form
        Format that it was read as.

    Raises
    ------
    NucSegError
        Image and labels differ in size, the resolution isn't known, a class isn't in the map, or there are more
        nuclei than 16 bit can tell apart.
    """
    value, source, warnings = _resolution(raw, mpp, where)
    digest = hashlib.blake2b(raw.image.tobytes(), digest_size=16).hexdigest()
    if raw.labels is None:
        warnings += _about_image(raw.image)
        return Checked(
            raw.image, None, None, np.zeros(len(classes.classes), np.int64), 0, value, source, math.nan, digest,
            tuple(warnings), raw.notes,
        )  # fmt: skip
    if raw.image.shape[:2] != raw.labels.shape:
        raise NucSegError(
            f"'{where}' has labels of {raw.labels.shape} pixels but an image of {raw.image.shape[:2]}; "
            "pair files of one download."
        )
    labels = _numbered(raw.labels, where)
    n = int(labels.max(initial=0))
    kinds, mixed = _kinds(labels, raw.types)
    targets = _targets(kinds, raw, classes, form)
    types = None if targets is None else np.concatenate([[np.uint8(0)], targets])[labels]
    counts = np.zeros(len(classes.classes), np.int64)
    if targets is not None:
        counts += np.bincount(targets, minlength=256)[1 : len(counts) + 1]
    areas = np.bincount(labels.ravel(), minlength=1)[1:]
    diameter = 2 * float(np.sqrt(np.median(areas) / np.pi)) * value if n else math.nan
    warnings += _about_image(raw.image) + _about_nuclei(areas, value, diameter)
    notes = {**raw.notes, LOOSE: split_parts(labels)[1] - n, MIXED: mixed}
    notes[SMALL] = int((areas * value**2 < LEAST_UM2).sum())
    notes[UNKNOWN] = 0 if targets is None else int((targets == IGNORE).sum())
    return Checked(
        raw.image, labels, types, counts, n - int(counts.sum()), value, source, diameter, digest,
        tuple(warnings), {text: count for text, count in notes.items() if count},
    )  # fmt: skip


def _resolution(raw: Raw, stated: float | None, where: str) -> tuple[float, str, list[str]]:
    if stated is not None:
        differs = raw.mpp is not None and abs(stated - raw.mpp) > _DIFFERENT * raw.mpp
        warnings = [f"mpp {stated:g} as stated, where {raw.mpp_source} says {raw.mpp:g}"] if differs else []
        return stated, "stated", warnings
    if raw.mpp is None:
        why = "" if raw.mpp_source == "unknown" else f" ({raw.mpp_source})"
        raise NucSegError(
            f"Resolution of '{where}' is not known{why}; state it with --mpp, such as 0.25 for 40x."
        )
    if not PLAUSIBLE[0] <= raw.mpp <= PLAUSIBLE[1]:
        raise NucSegError(
            f"'{where}' has mpp {raw.mpp:g} by {raw.mpp_source}, but nuclei are seen at {PLAUSIBLE[0]} to "
            f"{PLAUSIBLE[1]}; state the right one with --mpp."
        )
    return raw.mpp, raw.mpp_source, []


def _numbered(ids: NDArray[np.int32], where: str) -> NDArray[np.uint16]:
    """Return labels 1..n in the order of the ids."""
    known, position = np.unique(ids, return_inverse=True)
    numbered = position.reshape(ids.shape) + (0 if known.size and known[0] == 0 else 1)
    if (n := int(numbered.max(initial=0))) > MOST_NUCLEI:
        raise NucSegError(f"'{where}' has {n:,} nuclei, more than {MOST_NUCLEI:,}; cut it into regions.")
    return numbered.astype(np.uint16)


def _kinds(labels: NDArray[np.uint16], types: NDArray[np.uint8] | None) -> tuple[NDArray[np.int64], int]:
    """Return the class of the nuclei 1..n, the commonest known one of its pixels or 0, and how many have several."""
    n = int(labels.max(initial=0))
    if types is None or not n:
        return np.zeros(n, np.int64), 0
    inside = labels > 0
    votes = np.bincount((labels[inside].astype(np.int64) - 1) * 256 + types[inside], minlength=n * 256)
    votes = votes.reshape(n, 256)
    mixed = int(((votes > 0).sum(1) > 1).sum())
    votes[:, [0, IGNORE]] = 0
    return np.where(votes.max(1) > 0, votes.argmax(1), 0), mixed


def _targets(
    kinds: NDArray[np.int64], raw: Raw, classes: ClassMap | OpenClasses, form: str
) -> NDArray[np.uint8] | None:
    """Return the target class of every nucleus, 255 where it isn't known."""
    if raw.types is None:
        return None
    lookup = classes.numbers(raw.classes, form)
    lookup[0] = IGNORE  # here 0 is a nucleus whose class nobody knows
    return lookup[kinds]


def _about_image(image: NDArray[np.uint8]) -> list[str]:
    out = []
    if min(image.shape[:2]) < LEAST_SIDE:
        out.append(f"image of only {image.shape[1]} x {image.shape[0]} pixels")
    if image.mean(2, dtype=np.float32).std() < _FLAT:
        out.append("image of nearly one colour")
    return out


def _about_nuclei(areas: NDArray[np.int64], mpp: float, diameter: float) -> list[str]:
    if not areas.size:
        return ["no nuclei"]
    out = []
    if areas.size >= _ENOUGH and not POSSIBLE_UM[0] <= diameter <= POSSIBLE_UM[1]:
        out.append(f"nuclei of {diameter:.1f} um in the median: is mpp {mpp:g} right?")
    specks = int((areas * mpp**2 < LEAST_UM2).sum())
    if areas.size >= _ENOUGH and specks > SPECKS * areas.size:
        out.append(f"{specks:,} of {areas.size:,} nuclei smaller than {LEAST_UM2:g} um2")
    return out


def doubtful_size(images: Sequence[tuple[int, float, float]]) -> list[str]:
    """Tell where the nuclei of a set are so large or small that its mpp is likely wrong.

    Parameters
    ----------
    images
        Of every image the number of nuclei, their median diameter in micrometres, and the mpp.
    """
    images = sorted((i for i in images if i[0]), key=lambda image: image[1])
    nuclei = np.cumsum([count for count, _, _ in images])
    if not images or nuclei[-1] < _ENOUGH:
        return []
    typical = images[int(np.searchsorted(nuclei, nuclei[-1] / 2))][1]
    if USUAL_UM[0] <= typical <= USUAL_UM[1]:
        return []
    way = "double" if typical < USUAL_UM[0] else "half"
    mpp = float(np.median([image[2] for image in images]))
    return [
        f"The nuclei measure {typical:.1f} um in the median, where sets have {USUAL_UM[0]:g} to {USUAL_UM[1]:g}: see "
        f"whether mpp {mpp:g} is right, or it should be {way} of that (--mpp)."
    ]


def duplicates(digests: Sequence[tuple[str, str, str]]) -> list[str]:
    """Tell which images have the same pixels.

    Parameters
    ----------
    digests
        (name, split, digest) of every image.
    """
    first: dict[str, tuple[str, str]] = {}
    out = []
    for name, split, digest in digests:
        if digest not in first:
            first[digest] = (name, split)
            continue
        twin, side = first[digest]
        leak = f", one in {side} and one in {split}" if side != split else ""
        out.append(f"'{twin}' and '{name}' are the same image{leak}; leave one out.")
    return out
