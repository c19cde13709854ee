"""Records of a session from a run's table, and a table of them for files and people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.nuclei import UNCLASSIFIED, NucleusClass, Origin, State, record_dtype

if TYPE_CHECKING:
    import pandas as pd

UNCLASSIFIED_NAME = "unclassified"


def records_from_table(nuclei: pd.DataFrame, classes: Sequence[NucleusClass]) -> NDArray[Any]:
    """Return the records of a run's nuclei, see `inference.Result`; their areas are still to be counted.

    The probabilities are those of the classes which the table has a column ``prob_<class>`` for.
    """
    names = [c.name for c in classes]
    known = [name for name in names if f"prob_{name}" in nuclei]
    records = np.zeros(len(nuclei), record_dtype(len(known)))
    order = np.argsort(nuclei["id"].to_numpy(), kind="stable")
    table = nuclei.iloc[order]
    numbers = {name: k for k, name in enumerate(names)}
    records["id"] = table["id"].to_numpy()
    records["y"], records["x"] = table["centre_y"].to_numpy(), table["centre_x"].to_numpy()
    records["kind"] = [numbers.get(name, UNCLASSIFIED) for name in table["class"]]
    records["score"] = table["score"].to_numpy()
    records["state"], records["origin"] = State.PREDICTED, Origin.MODEL
    for k, name in enumerate(known):
        records["prob"][:, k] = table[f"prob_{name}"].to_numpy()
    return records


def table_of(records: NDArray[Any], classes: Sequence[NucleusClass]) -> pd.DataFrame:
    """Return records as a table: id, centre_y, centre_x, class, score, prob_<class>, state, origin, locked."""
    import pandas as pd

    names = np.array([*(c.name for c in classes), UNCLASSIFIED_NAME], dtype=object)
    states = {int(s): s.word for s in State}
    origins = {0: "", **{int(o): o.word for o in Origin}}
    return pd.DataFrame(
        {
            "id": records["id"].copy(),
            "centre_y": records["y"].copy(),
            "centre_x": records["x"].copy(),
            "class": names[records["kind"]],  # the last one for UNCLASSIFIED, which is -1
            "score": records["score"].copy(),
            **{f"prob_{names[k]}": records["prob"][:, k].copy() for k in range(records["prob"].shape[1])},
            "state": [states[s] for s in records["state"].tolist()],
            "origin": [origins[o] for o in records["origin"].tolist()],
            "locked": records["locked"].copy(),
        }
    )
