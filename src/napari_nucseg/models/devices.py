"""Names of the devices a user may ask for; a module of its own, so that ``--help`` needs nothing else."""

DEVICES = ("auto", "cuda", "cpu", "cpu-torch")
""""cpu" is the fastest CPU runtime installed, "cpu-torch" insists on torch."""
