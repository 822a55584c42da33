#!/usr/bin/env bash
# sbatch deploy/slurm.sh sweeps/paper.yaml [KEY.PATH=VALUE ...]
#
# One Ray cluster for the length of the job, the sweep on its first machine. The same command again, or Slurm's own
# requeueing, goes on where it was. Needs the checkout and its .venv on a folder that all machines see.
#SBATCH --job-name=fttune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export FTTUNE_SHARED="${FTTUNE_SHARED:-$PWD/runs/shared}"
# The driver alone writes to the tracker; a server elsewhere is named by MLFLOW_TRACKING_URI.
export MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-sqlite:///$FTTUNE_SHARED/mlflow.db}"
. deploy/environment.sh
mkdir -p "$FTTUNE_SHARED"
# The home folder carries the token to the other machines.
test -s ~/.ray/auth_token || (umask 077 && ray get-auth-token --generate >/dev/null)
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# The driver alone is told to end, and has its trials saved; `ray symmetric-run`, which starts it, would kill it.
driver="$FTTUNE_SHARED/driver-$SLURM_JOB_ID"
trap 'kill -TERM "$(cat "$driver")" || true' TERM
srun --kill-on-bad-exit=0 ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --disable-usage-stats -- bash -c 'echo $$ >"$0" && exec fttune run "$@"' "$driver" "$@" --address auto &
code=0
while wait "$!" || code=$?; kill -0 "$!" 2>/dev/null; do code=0; done
rm -f "$driver"
exit "$code"
