"""Class maps: which classes of the data sets become which classes to learn, from a TOML file.

::

    ignore = ["ambiguous"]                    # these nuclei train everything but the class

    [classes]                                 # in the order to learn: target = [names in the data sets]
    neoplastic = ["neoplastic", "dysplastic/malignant epithelial"]
    inflammatory = ["inflammatory", "lymphocyte", "neutrophil"]

One file may serve several sets: it names the classes of all of them. Where two sets mean different nuclei by one name,
the format or the set's folder before it tells them apart: ``conic:epithelial`` goes before ``epithelial`` for images
that are read as conic, or lie in a set called conic.
A target is a source name of itself, unless it's given to another one; and a set that has just the targets was
prepared by the map, so that its classes stay as they are.
Names are compared without regard to upper and lower case. A class of the data that the file doesn't name is an error,
since leaving it out silently would make those nuclei look as if nobody knew them.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucseg.core.targets import IGNORE
from napari_nucseg.errors import NucSegError

MOST_CLASSES = 254
"""Types are 8 bit, with 0 for the background and 255 for the unknown."""


class ClassMapError(NucSegError):
    """Classes that fit no map: none of the images can be relied on."""


@dataclass(frozen=True)
class ClassMap:
    """From names in the data to positions in `classes`.

    Attributes
    ----------
    classes : tuple of str
        Target classes in order; they have the numbers 1..C.
    table : mapping
        Source name in lower case -> number, `IGNORE` for those to be ignored.
    """

    classes: tuple[str, ...]
    table: Mapping[str, int]

    @classmethod
    def load(cls, path: Path) -> ClassMap:
        """Read a class map; see the module for its form.

        Raises
        ------
        NucSegError
            The file is missing, no TOML, of another form, or names a class twice.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise NucSegError(
                f"Class map '{path}' can't be read ({error.strerror}); check the path."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise NucSegError(f"Class map '{path}' is not valid TOML: {error}.") from error
        return cls._parse(content, path)

    @classmethod
    def _parse(cls, content: dict[str, Any], path: Path) -> ClassMap:
        unknown = [key for key in content if key not in ("classes", "ignore")]
        groups = content.get("classes")
        if unknown or not isinstance(groups, dict) or not groups:
            found = f"the key '{unknown[0]}'" if unknown else "no table [classes]"
            raise NucSegError(
                f"Class map '{path}' has {found}; it consists of 'ignore' and a table [classes]."
            )
        if len(groups) > MOST_CLASSES:
            raise NucSegError(
                f"Class map '{path}' has {len(groups)} classes, more than {MOST_CLASSES}; merge some."
            )
        table: dict[str, int] = {}
        numbered = [(name, members, i + 1) for i, (name, members) in enumerate(groups.items())]
        for target, members, number in [*numbered, ("ignore", content.get("ignore", []), IGNORE)]:
            if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
                raise NucSegError(
                    f"'{target}' in class map '{path}' must be a list of names, not {members!r}."
                )
            for member in members:
                if table.setdefault(_key(member), number) != number:
                    raise NucSegError(
                        f"Class map '{path}' names '{member}' twice; give it to one class only."
                    )
        for target, _, number in numbered:  # data that were prepared by this map have its classes
            table.setdefault(_key(target), number)
        return cls(tuple(groups), table)

    def numbers(self, names: Iterable[str], form: str = "") -> NDArray[np.uint8]:
        """Return the lookup from a set's class numbers (1..C of `names`) to those of the target classes.

        Parameters
        ----------
        names
            The set's classes.
        form
            Format that the set is read as, or its folder's name.

        Returns
        -------
        (256,) uint8
            0 stays 0; `IGNORE` for all that isn't a class.

        Raises
        ------
        ClassMapError
            Names aren't in the map; all of them are told.
        """
        names = tuple(names)
        lookup = np.full(256, IGNORE, np.uint8)
        lookup[0] = 0
        if names == self.classes:  # or a prepared "epithelial" would be what its set meant by it before
            lookup[: len(names) + 1] = range(len(names) + 1)
            return lookup
        self.check(dict.fromkeys(names), form)
        for number, name in enumerate(names, 1):
            if (found := self._find(name, form)) is not None:
                lookup[number] = found
        return lookup

    def check(self, names: Mapping[str, str | None], form: str = "") -> None:
        """Raise `ClassMapError`, which tells all of a set's classes that aren't in the map.

        Parameters
        ----------
        names
            The classes, and for each a file that has it, if that is known.
        form
            See `numbers`.
        """
        missing = {name: file for name, file in names.items() if self._find(name, form) is None}
        if not missing or tuple(names) == self.classes:
            return
        told = []
        for name, file in missing.items():
            near = difflib.get_close_matches(_key(name), self.table, 1)
            facts = [f"in '{file}'"] * bool(file) + [f"did you write it '{near[0]}'?" for _ in near]
            told.append(f"'{name}'" + (f" ({'; '.join(facts)})" if facts else ""))
        raise ClassMapError(
            f"The class map lacks {', '.join(told)}: add what the data have to a class or to 'ignore'."
        )

    def _find(self, name: str, form: str) -> int | None:
        return self.table.get(_key(f"{form}:{name}"), self.table.get(_key(name)))


class OpenClasses:
    """Stands in for a class map where none is given: every class is itself, numbered in the order of appearance."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._names: list[str] = list(known)

    @property
    def classes(self) -> tuple[str, ...]:
        """All that have appeared."""
        return tuple(self._names)

    def numbers(self, names: Iterable[str], form: str = "") -> NDArray[np.uint8]:
        """See `ClassMap.numbers`; new names are appended.

        Raises
        ------
        ClassMapError
            There are more than `MOST_CLASSES`.
        """
        del form
        lookup = np.full(256, IGNORE, np.uint8)
        lookup[0] = 0
        for number, name in enumerate(names, 1):
            if name not in self._names:
                self._names.append(name)
            if len(self._names) > MOST_CLASSES:
                raise ClassMapError(f"There are more than {MOST_CLASSES} classes; merge some by a class map.")
            lookup[number] = self._names.index(name) + 1
        return lookup


def _key(name: str) -> str:
    return " ".join(name.casefold().split())
