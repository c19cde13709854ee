"""Settings of the training data: which sets, in what shares, divided how, and which classes to learn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from napari_nucseg.errors import NucSegError
from train.class_map import ClassMap


@dataclass(frozen=True)
class SetConfig:
    """One data set of the training mix.

    Parameters
    ----------
    weight : float
        Share of the crops that are drawn from this set (relative to the others).
    train, validation : tuple of str
        Splits to train on and to validate with: folders of the set, or folds as published (column ``published`` of
        ``index.csv``), such as ``["fold1"]`` and ``["fold2"]``.
    splits : str, optional
        A table in the set's folder with the columns ``name``, ``split`` and possibly ``patient``, which stands in
        for the folders.
    held_out : tuple of str
        Names, or beginnings of names, or patients, of the training images kept for validation.
    val_fraction : float
        Share of the (other) training images to keep for validation, by whole patients.
    patient : str, optional
        Regular expression that finds the patient in a name; without it ``index.csv`` tells, or a TCGA barcode.
    mpp : float, optional
        Stated resolution, where the set gives none.
    mpp_from_size : float, optional
        Median nucleus diameter in micrometres from which the resolution of each image is estimated, for sets
        of unknown and mixed magnification.
    merge : str, optional
        Name of a class merge in ``dataset.json`` (such as ``merge_pannuke``); comes before a class map.
    labelled : bool
        False for images without labels, in ``<set>/train/images`` or ``<set>/images``: only a teacher can teach
        with them. Such a set needs no ``dataset.json`` if `mpp` is given.
    """

    weight: float = 1.0
    train: tuple[str, ...] = ("train",)
    validation: tuple[str, ...] = ("val",)
    splits: str | None = None
    held_out: tuple[str, ...] = ()
    val_fraction: float = 0.0
    patient: str | None = None
    mpp: float | None = None
    mpp_from_size: float | None = None
    merge: str | None = None
    labelled: bool = True


@dataclass(frozen=True)
class DataConfig:
    """Where the data lies, its sets and the classes to learn.

    Parameters
    ----------
    root : Path
        Folder of the data sets.
    classes : tuple of str
        To learn, in order. A class map brings its own.
    class_map : Path, optional
        TOML file that tells which classes of the sets become which (see ``train/class_map.py``). Without it a class
        of a set is learnt if it has the name of one of `classes`; nuclei of others train all but the class.
    cache_gb : float
        Memory for images that were read, shared by the loader processes. What doesn't fit is read each time.
    sets : dict of str to SetConfig
        By the name of their folder.
    """

    root: Path = Path("data")
    classes: tuple[str, ...] = ("neoplastic", "inflammatory", "connective", "epithelial", "other")
    class_map: Path | None = None
    cache_gb: float = 2.0
    sets: dict[str, SetConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = next((name for name in self.classes if self.classes.count(name) > 1), None)
        if twice is not None:
            raise NucSegError(f"data.classes names '{twice}' twice; name every class once.")

    def resolved(self) -> DataConfig:
        """Return the settings with the classes of the class map, so that a run records them.

        Raises
        ------
        NucSegError
            The class map can't be read, or `classes` are set to others.
        """
        if self.class_map is None:
            return self
        own = ClassMap.load(self.class_map).classes
        if self.classes not in (own, DataConfig.classes):
            raise NucSegError(
                f"data.classes={list(self.classes)} are not those of data.class_map='{self.class_map}', which brings "
                f"its own ({', '.join(own)}); leave data.classes out."
            )
        return replace(self, classes=own)
