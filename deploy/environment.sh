# What every process of a cluster has to know. Sourced, from the checkout, by whatever starts Ray, the tracking server
# or a sweep. FTTUNE_SHARED: a folder that all machines see, at the same path.
export FTTUNE_SHARED="${FTTUNE_SHARED:-/mnt/fttune}"
export FTTUNE_STORE="$FTTUNE_SHARED/store"
export FTTUNE_CACHE="$FTTUNE_SHARED/features"
export FTTUNE_STATE="$FTTUNE_SHARED/state"
export FTTUNE_NETWORKS="$FTTUNE_SHARED/networks"
export FTTUNE_DATA="${FTTUNE_DATA:-$FTTUNE_SHARED/data}"
export MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-http://127.0.0.1:5000}"
export RAY_AUTH_MODE=token
# Keep freed memory in a worker's process, as `fttune run` sets for a cluster of its own.
export MALLOC_MMAP_THRESHOLD_=4294967296
export MALLOC_TRIM_THRESHOLD_=4294967296
export MALLOC_TOP_PAD_=268435456
export MALLOC_ARENA_MAX=1
export PATH="$PWD/.venv/bin:$PATH"
# Ray holds a file open for every connection.
ulimit -n "$(ulimit -Hn)"
