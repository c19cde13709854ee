"""Whole slides and cohorts: tiles on disk, streamed results, and runs that can be killed and gone on with."""
