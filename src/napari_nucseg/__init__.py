"""Segment, classify and review nuclei of H&E images."""
