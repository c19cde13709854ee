"""Write evaluations down: tables to read and to paste, one row an image as CSV, everything as JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_nucseg.errors import NucSegError
from train.intervals import Difference
from train.scores import PER_ORGAN, Figure, ImageScore

UNDEFINED = "-"
"""Stands for a figure that is not defined."""

FEW = 5
"""What is chosen on fewer images than these tells little of others."""


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells, the first of them the head, as a markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def counted(number: int, what: str) -> str:
    """Return a number of things in words, such as "1 image" and "2,000 images"; "nucleus" has its own plural."""
    several = what.removesuffix("us") + "i" if what.endswith("us") else f"{what}s"
    return f"{number:,} {what if number == 1 else several}"


def _value(value: float, sign: str = "") -> str:
    return UNDEFINED if math.isnan(value) else f"{value:{sign}.3f}"


def _span(low: float, high: float, sign: str = "") -> str:
    return UNDEFINED if math.isnan(low) else f"{low:{sign}.3f} to {high:{sign}.3f}"


def cell(value: float, low: float = math.nan, high: float = math.nan, *, sign: str = "") -> str:
    """Return a figure for a cell of a table, with its interval in brackets where that is known."""
    text = _value(value, sign)
    return text if math.isnan(low) else f"{text} ({_span(low, high, sign)})"


def _noted(text: str, values: Sequence[float]) -> str:
    """Return a table with what its dashes mean below it, where it has any in place of figures."""
    unknown = any(map(math.isnan, values))
    return (
        f"{text}\n\n{UNDEFINED} in place of a figure: these images hold no such nuclei." if unknown else text
    )


def _without(text: str, names: Sequence[str]) -> str:
    """Return a table with the figures that it leaves out named below it, where there are any."""
    if not names:
        return text
    return (
        f"{text}\n\nThese images hold no nuclei for {', '.join(dict.fromkeys(names))}, which are left out, "
        "also of means over classes."
    )


def table(found: Sequence[Figure]) -> str:
    """Return all figures that are defined as a markdown table that says how each is averaged."""
    known = [f for f in found if not math.isnan(f.value)]
    rows = [(f.name, _value(f.value), _span(f.low, f.high), f.averaging) for f in known]
    text = markdown([("figure", "value", "95 % interval", "averaging"), *rows])
    return _without(text, [f.name for f in found if math.isnan(f.value)])


def difference_table(found: Sequence[Difference], base: str, model: str) -> str:
    """Return a comparison as a markdown table, model minus base, with the better one where the interval leaves out 0.

    Of all figures, more is better; those that neither has are left out.
    """
    known = [f for f in found if not (math.isnan(f.base) and math.isnan(f.value))]
    unknown = [f.name for f in found if f not in known]
    rows = [
        (
            f.name,
            _value(f.base),
            _value(f.value),
            _value(f.difference, "+"),
            _span(f.low, f.high, "+"),
            (model if f.difference > 0 else base) if f.clear else "not clear",
            f.averaging,
        )
        for f in known
    ]
    minus = f"{model} minus {base}"
    text = markdown([("figure", base, model, minus, "95 % interval", "better", "averaging"), *rows])
    return _without(_noted(text, [f.difference for f in known]), unknown)


def organ_table(organs: Mapping[str, Sequence[Figure]], counts: Mapping[str, int]) -> str:
    """Return one row an organ with the figures over all nuclei and the mPQ."""
    some = next(iter(organs.values()))
    chosen = [k for k, f in enumerate(some) if "(" not in f.name or f.name.startswith("mPQ (")]
    rows = [
        (name, str(counts[name]), *(_value(found[k].value) for k in chosen)) for name, found in organs.items()
    ]
    text = markdown([("organ", "images", *(some[k].name for k in chosen)), *rows])
    return _noted(text, [found[k].value for found in organs.values() for k in chosen])


def split_name(name: str) -> tuple[str, str]:
    """Return the name of a figure, and of the scheme of classes at its end or ""; a class may have brackets too."""
    head, _, key = name.rpartition(" (")
    return (head, key.removesuffix(")")) if head and key.endswith(")") else (name, "")


def readme_rows(found: Sequence[Figure], what: str, images: int) -> str:
    """Return the figures as one row a table for the README, heads included.

    The first table is over all nuclei, the others over the classes of each scheme; means over organs and what is not
    defined are left out.
    """
    groups: dict[str, list[Figure]] = {}
    for figure in found:
        if figure.averaging != PER_ORGAN and not math.isnan(figure.value):
            name, key = split_name(figure.name)
            groups.setdefault(key, []).append(Figure(name, figure.averaging, figure.value))
    blocks = []
    for key, members in groups.items():
        head = ["set", "images", *(f.name for f in members)]
        what_of = f"{what}{f', classes {key}' if key else ''}"
        blocks.append(markdown([head, [what_of, str(images), *(_value(f.value) for f in members)]]))
    return "\n\n".join(blocks)


def image_rows(scores: Sequence[ImageScore], others: Sequence[ImageScore] = ()) -> list[dict[str, Any]]:
    """Return one row an image; where a second model is given, with its figures and what the first gains over it."""
    rows = [score.row() for score in scores]
    for row, other in zip(rows, others, strict=False):
        for key, value in other.row().items():
            if key in ("name", "organ", "mpp", "true_nuclei"):
                continue
            mine = row.get(key)
            row[f"{key} [2]"] = value
            if isinstance(mine, float) and key != "seconds":
                row[f"{key} [1-2]"] = mine - value
    return rows


def write(
    folder: Path, stem: str, rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any]
) -> tuple[Path, Path]:
    """Write the table of images and the report; return both paths.

    Raises
    ------
    NucSegError
        The folder cannot be written to.
    """
    images, summary = folder / f"{stem}_images.csv", folder / f"{stem}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with images.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        summary.write_text(as_json(report), encoding="utf-8")
    except OSError as error:
        raise NucSegError(
            f"The report cannot be written to '{folder}' ({error.strerror}); give another --out."
        ) from error
    return images, summary


def as_json(report: Any) -> str:
    """Return JSON text in which NaN is null."""
    return json.dumps(_finite(report), indent=1, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """Replace NaN by None, which JSON can say."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
