"""napari reader for slides: lazy pyramids with their scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucseg.errors import NucSegError
from napari_nucseg.io.slide import read_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_nucseg.io.slide import SlideImage, SlideLevel

SLIDES = (".svs", ".ndpi")
TIFFS = (".tif", ".tiff")

_CHUNK = 1024
_WHOLE_PIXELS = 64 * 2**20  # an image without lower levels is loaded at once up to here

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return `read_slide` for a slide, None for anything that napari or another plugin reads better.

    Parameters
    ----------
    path
        A list of paths (a stack) is declined, and so is a plain TIFF: one that is neither a pyramid nor says
        its mpp, or which isn't RGB. ``.svs`` and ``.ndpi`` are always taken, so that a damaged one gets a
        clear message.
    """
    if not isinstance(path, str | Path):
        return None
    extension = Path(path).suffix.lower()
    if extension in SLIDES:
        return read_slide
    if extension not in TIFFS:
        return None
    try:
        with read_image(path) as slide:
            known = len(slide.level_shapes) > 1 or slide.mpp.value is not None
            return read_slide if slide.is_rgb and known else None
    except NucSegError:
        return None


def read_slide(path: str) -> list[LayerData]:
    """Open a slide as one RGB image layer.

    Returns
    -------
    list of layer data
        One image: the levels of a pyramid as lazy dask arrays; in micrometres where the mpp is known, else
        in pixels. ``metadata["napari_nucseg"]`` holds ``path``, ``mpp`` (None if unknown) and ``mpp_source``.

    Raises
    ------
    NucSegError
        The file can't be read.
    """
    slide = read_image(path)
    levels = slide.levels
    multiscale = len(levels) > 1
    height, width = slide.shape
    data: Any
    if multiscale:
        data = [_lazy(level) for level in levels]
    elif height * width <= _WHOLE_PIXELS:
        data = slide.read(0, height, 0, width)
        slide.close()
    else:
        data = _lazy(levels[0])
    return [(data, {"multiscale": multiscale, "rgb": True, **_description(slide)}, "image")]


def _description(slide: SlideImage) -> dict[str, Any]:
    value = slide.mpp.value
    scale = {} if value is None else {"scale": (value, value), "units": ("um", "um")}
    known = {"path": str(slide.path), "mpp": value, "mpp_source": slide.mpp.source}
    return {"name": slide.name, "metadata": {"napari_nucseg": known}, **scale}


def _lazy(level: SlideLevel) -> Any:
    """Wrap a level in dask, whose arrays every napari plugin understands; chunks are read when they are shown."""
    import dask.array as da

    return da.from_array(level, chunks=(_CHUNK, _CHUNK, 3), name=False, meta=level[:0, :0])
