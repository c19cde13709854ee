"""Speed of the pipeline on real images: ``make bench``."""
