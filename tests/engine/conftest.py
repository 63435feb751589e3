"""Where there is no Rust there is no compiled core to test; where there is Rust, a core that is missing is an error."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

if find_spec("streamseg_engine") is None and shutil.which("cargo") is None:
    collect_ignore_glob = ["test_*.py"]
