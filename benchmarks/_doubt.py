"""How well doubt finds the nuclei that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from napari_nucseg.core.doubt import CENTRE, contact_shares, doubt_of, doubt_parts
from napari_nucseg.core.nuclei import is_live

if TYPE_CHECKING:
    from benchmarks._agreement import Agreement
    from napari_nucseg.session import Session


@dataclass(frozen=True)
class Suspects:
    """The predicted nuclei of one image.

    Attributes
    ----------
    parts : float32 (n, 3)
        See `core.doubt.doubt_parts`.
    wrong : bool (n,)
        No true nucleus with an IoU above 0.5, or one of another class.
    """

    parts: NDArray[np.float32]
    wrong: NDArray[np.bool_]

    @classmethod
    def of(cls, session: Session, table: Agreement) -> Suspects:
        """Look at the session as it is."""
        records = session.records[is_live(session.records)]
        contact = contact_shares(session.labels, records["id"].copy())
        wrong = [_is_wrong(table, int(r["id"]), int(r["kind"])) for r in records]
        return cls(doubt_parts(records, contact, session.ground.config), np.array(wrong, np.bool_))


def _is_wrong(table: Agreement, p: int, kind: int) -> bool:
    true = table.match_of(p)
    return not true or bool(table.true_type[true] and table.true_type[true] - 1 != kind)


def area_under_curve(score: NDArray[Any], wrong: NDArray[np.bool_]) -> float:
    """Return the probability that a wrong one has the higher score than a right one (AUC); NaN without both.

    Parameters
    ----------
    score, wrong : (n,)
    """
    bad, good = int(wrong.sum()), int((~wrong).sum())
    if not bad or not good:
        return float("nan")
    return float((rankdata(score)[wrong].sum() - bad * (bad + 1) / 2) / (bad * good))


def doubt_report(images: Sequence[Suspects]) -> str:
    """Return how well doubt tells wrong from right, against the centre score alone; means over images."""
    ways = {
        "doubt": [area_under_curve(doubt_of(s.parts), s.wrong) for s in images],
        "centre score alone": [area_under_curve(s.parts[:, CENTRE], s.wrong) for s in images],
    }
    shares = [
        s.wrong[np.argsort(-doubt_of(s.parts))][: max(1, len(s.wrong) // 5)].mean()
        for s in images
        if s.wrong.size
    ]
    texts = ", ".join(f"{way} {np.nanmean(values):.3f}" for way, values in ways.items())
    everywhere = np.concatenate([s.wrong for s in images]).mean()
    return (
        f"Wrong nuclei (no match, or another class) found by doubt: AUC {texts} (means over images). Of the most "
        f"doubtful fifth {np.mean(shares):.0%} are wrong, of all {everywhere:.0%}."
    )
