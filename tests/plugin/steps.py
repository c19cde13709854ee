"""Steps that several tests of the panel take."""

from __future__ import annotations


def start(panel, gated, windows=6):
    """Start a run and wait until some nuclei are there."""
    panel.widget.run_bar.run_button.click()
    gated.let(windows)
    panel.until(lambda: panel.names[-1].startswith("tissue centres"))
    panel.until(lambda: len(panel.viewer.layers[-1].data) > 0)
