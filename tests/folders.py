"""Where tests keep what takes long to make again: outside of the checkout."""

import os
from pathlib import Path


def kept_folder(name: str) -> Path | None:
    """A folder for what is kept under this name; None where nothing can be written, and where
    `JAX_ENABLE_COMPILATION_CACHE=0` asks for everything to be made afresh."""
    if os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1").lower() in ("0", "false"):
        return None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home, "gradtx-tests", name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
