"""What is measured on real images: the speed of the pipeline (``make bench``), and reviews and their edits."""
