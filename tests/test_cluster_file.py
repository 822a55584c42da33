"""The cluster file passes Ray's own validation, offline."""

from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[1] / "cluster.yaml"


def validate(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_cluster_file() -> None:
    prepared = validate(yaml.safe_load(CLUSTER.read_text()))
    workers = prepared["available_node_types"]["gpu_worker"]
    assert workers["min_workers"] == 0
    assert workers["max_workers"] <= prepared["max_workers"]
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_ray_would_refuse_a_wrong_cluster_file() -> None:
    config = yaml.safe_load(CLUSTER.read_text())
    with pytest.raises(Exception, match="headd"):
        validate(config | {"headd": 1})
