"""Train, evaluate and export the networks of napari-nucseg (headless)."""
