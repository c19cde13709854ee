"""The method on plain arrays: maps, targets, decoding, tiling, metrics and colour."""
