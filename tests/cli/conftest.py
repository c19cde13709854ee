"""The small slide of the tests of whole slides."""

from tests.slides.conftest import pixels, slide

__all__ = ["pixels", "slide"]
