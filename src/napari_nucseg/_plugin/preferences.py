"""What the plugin remembers between two starts of napari."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_BASE = "session_folder"


def session_base() -> Path | None:
    """Return the folder in which the user wants reviews to be saved; None: each beside its image."""
    value = _read().get(_BASE)
    return Path(value) if isinstance(value, str) and value else None


def remember_session_base(folder: Path | None) -> None:
    """Remember the folder for reviews that are yet to begin."""
    from napari_nucseg.io.atomic import replacing

    with replacing(_file()) as draft:
        draft.write_text(
            json.dumps({**_read(), _BASE: None if folder is None else str(folder)}), encoding="utf-8"
        )


def _file() -> Path:
    from platformdirs import user_config_path

    return user_config_path("napari-nucseg", appauthor=False) / "preferences.json"


def _read() -> dict[str, Any]:
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("The preferences can't be read (%s); those of the plugin hold", error)
        return {}
    return content if isinstance(content, dict) else {}
