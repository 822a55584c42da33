#!/usr/bin/env bash
# The tracking server of a cluster, on its head and on loopback: only the driver writes to it. Does nothing where one
# answers already, or where MLFLOW_TRACKING_URI is of another machine. The database is on the shared folder, so that it outlives the head, with one process to write it;
# FTTUNE_DATABASE=postgresql://... takes a better one.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/environment.sh

# An address that may hold a password is of no command line and no line of a log.
[[ "$MLFLOW_TRACKING_URI" =~ ^http://(127\.0\.0\.1|localhost):[0-9]+$ ]] || exit 0
answers() { python -c "import os, urllib.request as r; r.urlopen(os.environ['MLFLOW_TRACKING_URI'] + '/health', timeout=5)" 2>/dev/null; }

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
