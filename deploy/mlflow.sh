#!/usr/bin/env bash
# The tracking server of a cluster, on its head and on loopback: only the driver writes to it. Does nothing where one
# answers already. The database is on the shared folder, so that it outlives the head, with one process to write it;
# FTTUNE_DATABASE=postgresql://... takes a better one.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/environment.sh

answers() { python -c "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)" "$MLFLOW_TRACKING_URI/health" 2>/dev/null; }

answers && exit 0
mkdir -p "$FTTUNE_SHARED/mlartifacts"
# The address of a database may hold a password, which a command line would show to all who list processes.
export MLFLOW_BACKEND_STORE_URI="${FTTUNE_DATABASE:-sqlite:///$FTTUNE_SHARED/mlflow.db}"
MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false nohup setsid mlflow server --host 127.0.0.1 --port "${MLFLOW_TRACKING_URI##*:}" --workers 1 \
  --artifacts-destination "$FTTUNE_SHARED/mlartifacts" </dev/null >>"$FTTUNE_SHARED/mlflow.log" 2>&1 &
for _ in $(seq 60); do
  answers && exit 0
  sleep 2
done
echo "no tracking server at $MLFLOW_TRACKING_URI; the last lines of $FTTUNE_SHARED/mlflow.log:" >&2
tail -n 5 "$FTTUNE_SHARED/mlflow.log" >&2
exit 1
