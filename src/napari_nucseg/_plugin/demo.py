"""Opens napari with an H&E image and the NucSeg panel ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_nucseg.errors import NucSegError


def open_demo(image: Path | None = None, mpp: float | None = None) -> None:
    """Open the window, and return when it is closed.

    Parameters
    ----------
    image : Path, optional
        An H&E image; the synthetic sample by default.
    mpp : float, optional
        Its micrometres per pixel, where the file does not say it or is wrong.

    Raises
    ------
    NucSegError
        The image cannot be read, or the mpp is not plausible.
    """
    import napari

    viewer, _panel = make_demo(image, mpp)
    napari.run()
    del viewer


def make_demo(image: Path | None = None, mpp: float | None = None, show: bool = True) -> tuple[Any, Any]:
    """Return a viewer with an image, and its NucSeg panel."""
    import napari

    layer = None if image is None else _image_layer(Path(image), mpp)  # complains before a window opens
    viewer = napari.Viewer(title="NucSeg", show=show)
    if layer is None:
        viewer.open_sample("napari-nucseg", "synthetic_he")
        if mpp is not None:
            _state(viewer.layers[0], mpp)
    else:
        viewer.add_layer(layer)
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-nucseg", "NucSeg")
    return viewer, panel


def _image_layer(path: Path, mpp: float | None) -> Any:
    from napari.layers import Image

    from napari_nucseg._plugin.reader import read_slide

    [(data, about, _kind)] = read_slide(str(path))
    layer = Image(data, **about)
    if mpp is not None:
        _state(layer, mpp)
    return layer


def _state(layer: Any, mpp: float) -> None:
    from napari_nucseg._plugin.images import state_mpp

    try:
        state_mpp(layer, mpp)
    except NucSegError as error:
        raise NucSegError(f"--mpp: {error}") from error
