"""Parts of the pipeline one by one, timed by pytest-benchmark: ``python -m benchmarks.suite``."""
