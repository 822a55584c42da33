"""Results leave a sweep here: into MLflow (`runs`, `writer`, `spool`) and into Arrow tables (`table`)."""
