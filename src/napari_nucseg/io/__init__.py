"""Reading of images and writing of results; neither torch nor Qt is imported here."""
