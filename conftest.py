"""Tests keep their runs in a folder of their own; chapters' scripts are run by their own test, not imported here."""

import os
import tempfile

collect_ignore_glob = ["notebooks/*.py"]

if "VAEKIT_RUNS" not in os.environ:  # the kernels of nbval inherit it; the user's own store is left alone
    _runs = tempfile.TemporaryDirectory(prefix="vaekit-runs-")
    os.environ["VAEKIT_RUNS"] = _runs.name
