"""The student network, its checkpoints and the runtimes that execute it."""
