"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucseg.errors import NucSegError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, which takes its place when the block ends without an error.

    Missing folders are made. A crash leaves an older file of that name as it was.

    Raises
    ------
    NucSegError
        The file can't be written: no permission, no space, a folder of that name ...
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise NucSegError(
            f"{path} can't be written ({reason}); choose another folder or free some space"
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
