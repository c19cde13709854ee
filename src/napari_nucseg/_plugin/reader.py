"""napari reader: slides as lazy pyramids with their scale, label images, and any other TIFF as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucseg._plugin.levels import levels_of
from napari_nucseg._plugin.small_results import labels_of, read_small_result
from napari_nucseg.errors import NucSegError
from napari_nucseg.io.mpp import from_tiff
from napari_nucseg.io.slide import read_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_nucseg.io.mpp import Mpp
    from napari_nucseg.io.slide import SlideImage

SLIDES = (".svs", ".ndpi", ".scn", ".bif", ".btf", ".tf8", ".mrxs", ".vms", ".vmu", ".svslide")
TIFFS = (".tif", ".tiff")

_WHOLE_PIXELS = 16 * 2**20  # an image without lower levels is loaded at once up to here
_LABELS = "_instances"  # how the names of saved label images end

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return `read_slide` for a file with the extension of a slide or TIFF, None for anything else.

    Parameters
    ----------
    path
        A list of paths (a stack) is declined. Every existing file is taken, whatever it holds, since napari
        offers the reader for its extension; a damaged one gets a clear message. Of folders, those with the results of
        one image.
    """
    if not isinstance(path, str | Path):
        return None
    if is_result(path):
        return read_result
    summary = small_summary(Path(path))
    if summary is not None:
        return lambda _: read_small_result(str(summary))
    here = Path(path).suffix.lower() in SLIDES + TIFFS and Path(path).is_file()
    return read_slide if here else None


def read_slide(path: str) -> list[LayerData]:
    """Open a file as one layer.

    Returns
    -------
    list of layer data
        One RGB image: the levels of a pyramid, which are read as they come into view. Or, of a TIFF: labels where
        it is a single plane of 32-bit integers, or of integers in a file named ``*_instances``; an image with the
        array as it is where it holds no single RGB or grey image. In micrometres where the mpp is known, else in
        pixels.
        ``metadata["napari_nucseg"]`` of an image holds ``path``, ``mpp`` (None if unknown) and ``mpp_source``.

    Raises
    ------
    NucSegError
        The file can't be read.
    """
    if _holds_labels(path):
        return [_read_plain(path)]
    try:
        slide = read_image(path)
    except NucSegError:
        if not _is_tiff(path):
            raise
        return [_read_plain(path)]
    height, width = slide.shape
    multiscale = len(slide.level_shapes) > 1 or height * width > _WHOLE_PIXELS
    data: Any
    if multiscale:
        data = levels_of(slide)
    else:
        data = slide.read(0, height, 0, width)
        slide.close()
    multiscale = multiscale and len(data) > 1
    data = data if multiscale or isinstance(data, np.ndarray) else data[0]
    return [(data, {"multiscale": multiscale, "rgb": True, **_description(slide)}, "image")]


def is_result(path: str | Path) -> bool:
    """Return whether a path is that of the results of one slide: their folder, their labels or their summary."""
    path = Path(path)
    if path.is_dir() and not path.name.endswith("_labels.zarr"):
        summaries = [p for p in path.glob("*_summary.json") if is_result(p)]
        return len(summaries) == 1
    if path.name.endswith("_summary.json"):
        return path.with_name(path.name.removesuffix("_summary.json") + "_labels.zarr").is_dir()
    return path.name.endswith("_labels.zarr") and path.is_dir()


def small_summary(path: Path) -> Path | None:
    """Return the summary of the results of an image of moderate size, given it or their folder; None if it is none."""
    if not path.is_dir():
        return path if path.name.endswith("_summary.json") and path.is_file() else None
    summaries = list(path.glob("*_summary.json"))
    return summaries[0] if len(summaries) == 1 and labels_of(summaries[0]).is_file() else None


def read_result(path: str) -> list[LayerData]:
    """Open the results of a slide: labels of all levels, and the centres in view once they are in a window.

    Raises
    ------
    NucSegError
        The labels can't be read.
    """
    from napari_nucseg._plugin.slide_results import attach_soon, labels_layer
    from napari_nucseg.slides.result import SlideResult

    result = SlideResult.open(path)
    data, options = labels_layer(result)
    attach_soon(result, data)
    return [(data, options, "labels")]


def _description(slide: SlideImage) -> dict[str, Any]:
    value = slide.mpp.value
    scale = {} if value is None else {"scale": (value, value), "units": ("um", "um")}
    return {"name": slide.name, "metadata": _metadata(slide.path, slide.mpp), **scale}


def _metadata(path: Path, mpp: Mpp) -> dict[str, Any]:
    return {"napari_nucseg": {"path": str(path), "mpp": mpp.value, "mpp_source": mpp.source}}


def _holds_labels(path: str) -> bool:
    """Whether a file holds nothing but numbers of objects; False also where it can't be read."""
    if not _is_tiff(path):
        return False
    import tifffile

    with tifffile.TiffFile(path) as tif:
        try:
            return len(tif.series) == 1 and _are_labels(tif.series[0], path)
        except Exception:  # what a broken file raises is told when it is read
            return False


def _is_tiff(path: str) -> bool:
    """Whether this is a TIFF, and no slide, that can be opened at all."""
    if Path(path).suffix.lower() not in TIFFS:
        return False
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            return len(tif.pages) > 0
    except Exception:  # tifffile raises what struct, codecs and the system raise
        return False


def _are_labels(series: Any, path: str) -> bool:
    integers = series.ndim == 2 and series.dtype.kind in "iu"
    return integers and (series.dtype.itemsize == 4 or Path(path).stem.endswith(_LABELS))


def _read_plain(path: str) -> LayerData:
    """Return the first array of a TIFF as it is."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            _check_complete(tif, series)
            data, axes, labels = series.asarray(), series.axes, _are_labels(series, path)
            mpp = from_tiff(tif, series.keyframe.aspage())
    except MemoryError:
        raise
    except Exception as error:  # the exception types of codecs are legion
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise NucSegError(
            f"{Path(path).name} can't be read: it is damaged or cut short ({reason[:160]}); "
            "copy or export the file again"
        ) from error
    colour = axes.endswith("YXS") and data.shape[-1] in (3, 4)
    options: dict[str, Any] = {"name": Path(path).stem}
    if colour or axes.endswith("YX"):
        options.update(_scale(mpp, data.ndim - colour))
    if labels:
        return data, options, "labels"
    return data, {"rgb": colour, "metadata": _metadata(Path(path), mpp), **options}, "image"


def _check_complete(tif: Any, series: Any) -> None:
    """Raise where data lie beyond the end of the file; tifffile would fill some kinds of them with zeros."""
    size = tif.filehandle.size
    for page in series.pages:
        if page is not None and any(
            offset + count > size
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
        ):
            raise EOFError(f"{size} bytes are not all of it")


def _scale(mpp: Mpp, ndim: int) -> dict[str, Any]:
    """Return scale and units of an array whose last axes are rows and columns."""
    if mpp.value is None:
        return {}
    others = ndim - 2
    return {
        "scale": (1.0,) * others + (mpp.value, mpp.value),
        "units": ("pixel",) * others + ("um", "um"),
    }
