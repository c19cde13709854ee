"""What the figures can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_nucseg.errors import NucSegError

KINDS = ("umap", "stages", "grid", "classes", "curves")
FORMATS = ("svg", "png", "pdf")


@dataclass(frozen=True)
class FiguresConfig:
    """Which figure to draw of what.

    Parameters
    ----------
    kind : str
        "umap" (nuclei of the images as points, coloured by class), "stages" (the maps of one image side by side),
        "grid" (images by models, errors marked), "classes" (how many nuclei of each class), "curves" (losses and
        figures of training runs).
    data : Path, optional
        Folder of one data set, or a plain folder of `images`, `instances` and perhaps `types`.
    split : str
        Split of the data set.
    held_out : Path, optional
        A training configuration or the folder of a run: only the images that it keeps for validation. For "classes"
        it stands in for `data`: all its sets, training and validation.
    merge : str, optional
        Merge in dataset.json that brings the classes of the set to the model's; found if not set.
    classes : tuple of str
        Names of the classes 1, 2 ... in `types`, for a folder without dataset.json.
    class_map : Path, optional
        Class map of the training, in place of a merge.
    mpp : float, optional
        Micrometres per pixel of all images: needed where the data does not say, and stronger where it does.
    limit : int, optional
        Only the first so many images.
    models : tuple of str
        Models, run folders or checkpoints. "umap" and "curves" compare several, "grid" has a column for each, "stages"
        shows the first; "curves" takes run folders only.
    labels : tuple of str
        What to call them in the figure; their own names if not set.
    images : tuple of str
        Names of the images to show, for "stages" (the first) and "grid" (a row each).
    at : tuple of int, optional
        Row and column of the middle of what is shown; the densest part if not set.
    window : float
        Side of what is shown, in micrometres.
    instances : str
        "true" or "predicted": the outlines over which "umap" pools features. Predicted nuclei have the class of the
        true nucleus they match, and are left out where there is none.
    stride : int
        Of the decoder features that "umap" pools, in pixels of the model; 0 for the finest, which feed the heads.
    most : int
        Nuclei that "umap" shows, drawn at random if there are more.
    panels : tuple of str
        What "curves" shows, such as ["total", "consep/bPQ"]; all losses and bPQ if not set.
    device : str
        auto, cuda, cpu or cpu-torch.
    seed : int
        Of what is drawn at random.
    width : float
        Of the figure in millimetres. Text is at least 8 pt at this width.
    dpi : int
        Of pictures in the figure, and of PNG.
    format : str
        "svg", "png" or "pdf".
    out : Path
        Folder for the figure, or the file itself if it ends in .svg, .png or .pdf.
    """

    kind: str
    data: Path | None = None
    split: str = ""
    held_out: Path | None = None
    merge: str | None = None
    classes: tuple[str, ...] = ()
    class_map: Path | None = None
    mpp: float | None = None
    limit: int | None = None
    models: tuple[str, ...] = ("default",)
    labels: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    at: tuple[int, int] | None = None
    window: float = 64.0
    instances: str = "true"
    stride: int = 0
    most: int = 4000
    panels: tuple[str, ...] = ()
    device: str = "auto"
    seed: int = 0
    width: float = 160.0
    dpi: int = 300
    format: str = "svg"
    out: Path = Path("figures")

    def __post_init__(self) -> None:
        for name, known in (
            ("kind", KINDS), ("format", FORMATS), ("instances", ("true", "predicted")),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise NucSegError(f"{name}='{getattr(self, name)}' is not one of {', '.join(known)}.")
        for name, least in (("most", 3), ("dpi", 30), ("width", 40), ("window", 5)):
            if not getattr(self, name) >= least:
                raise NucSegError(f"{name}={getattr(self, name)} is too small; it must be at least {least}.")
        if not self.models:
            raise NucSegError("models=[] names nothing to show; give at least one.")
        if self.labels and len(self.labels) != len(self.models):
            raise NucSegError(
                f"labels={list(self.labels)} are {len(self.labels)} names for {len(self.models)} models; give one each."
            )

    @property
    def path(self) -> Path:
        """File to write."""
        if self.out.suffix.lstrip(".") in FORMATS:
            return self.out
        return self.out / f"{self.kind}.{self.format}"

    def label(self, position: int, name: str) -> str:
        """Return what to call a model: the label given, or its own name."""
        return self.labels[position] if self.labels else name
