"""Sweeps on Ray."""

import os

# Read by Ray when it is started or imported, which only modules of this package do. Left to itself Ray would rebuild
# the environment of `uv run` for every worker, write its own logs of each result, and count usage.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "0"  # an interrupt is read off Tune's own
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "200")  # jobs that wait for a place, and so call for machines
