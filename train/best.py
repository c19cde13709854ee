"""The best validation so far, and when to stop for want of a better one."""

from __future__ import annotations

import math
from typing import Any

from napari_nucseg.errors import NucSegError


class Best:
    """Keep the best value of a figure and count the validations since.

    Parameters
    ----------
    patience : int
        Validations without a better one after which `exhausted` is true; 0 for never.
    figure : str
        Name of the figure to go by; higher is better.
    """

    def __init__(self, patience: int, figure: str = "bPQ") -> None:
        self.patience, self.figure = patience, figure
        self.value, self.step, self.since = -math.inf, 0, 0

    def update(self, step: int, values: dict[str, float]) -> bool:
        """Take the figures of a validation; true if they are the best so far. NaN is never better.

        Raises
        ------
        NucSegError
            There is patience, but the figure is not among the values.
        """
        if self.figure not in values:
            if self.patience:
                raise NucSegError(
                    f"loop.patience={self.patience} goes by {self.figure}, which this validation does not give; "
                    "set it to 0."
                )
            return False
        if values[self.figure] > self.value:
            self.value, self.step, self.since = values[self.figure], step, 0
            return True
        self.since += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return bool(self.patience) and self.since >= self.patience

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"value": self.value, "step": self.step, "since": self.since}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.value, self.step, self.since = state["value"], state["step"], state["since"]
