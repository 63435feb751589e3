"""The compiled core is optional where there is no Rust to build it with; where there is, it has to be there."""

from __future__ import annotations

import importlib.util
import shutil

missing = importlib.util.find_spec("streamseg_engine") is None
collect_ignore_glob = ["test_*.py"] if missing and shutil.which("cargo") is None else []
