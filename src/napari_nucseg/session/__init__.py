"""The review session: nuclei, centres, labels and history of one image, without a GUI."""

from napari_nucseg.session.drag import Drag
from napari_nucseg.session.ground import MapsMissing
from napari_nucseg.session.session import Session

__all__ = ["Drag", "MapsMissing", "Session"]
