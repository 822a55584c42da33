"""Which clusters grow when a machine is asked for, by what Ray's autoscaler tells of itself (as seen, shortened)."""

from typing import Any

import pytest

from fttune.sweep.machines import starts_machines


@pytest.mark.parametrize(
    ("kinds", "grows"),
    [
        ({"i-0a1b": "head"}, True),
        ({"i-0a1b": "head", "i-0c2d": "gpu_worker"}, True),
        ({"0f60eb6b": "node_0f60eb6b", "1a2b3c4d": "node_1a2b3c4d"}, False),
        ({"192.0.2.1": "local.cluster.node", "192.0.2.2": "local.cluster.node"}, False),
        ({}, False),
        (None, False),
    ],
    ids=[
        "a cloud, the head alone",
        "a cloud",
        "started by hand",
        "machines of one's own",
        "nothing yet",
        "nothing told",
    ],
)
def test_machines_come_where_the_autoscaler_has_kinds_of_its_own(kinds: dict[str, str] | None, grows: bool) -> None:
    status: dict[str, Any] = {"autoscaler_report": {"active_nodes": {}, "node_type_mapping": kinds}}
    assert starts_machines(status) is grows


def test_where_no_autoscaler_tells_anything_none_comes() -> None:
    assert not starts_machines({})
    assert not starts_machines({"autoscaler_report": None})
