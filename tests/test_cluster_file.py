"""The cluster files pass Ray's own validation, offline, and the checks that Ray leaves out."""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from stores import wait_until

Config = dict[str, Any]

ROOT = Path(__file__).parents[1]
FILES = ["cluster.yaml", "deploy/local-cluster.yaml"]
COMMANDS = ["initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"]
STARTS = ["head_start_ray_commands", "worker_start_ray_commands"]
EVERYWHERE = re.compile(r"\b0\.0\.0\.0\b|--host[= ]+['\"]?(\*|::)|-host[= ]+['\"]?(\*|::)")
PRIVATE = [".venv", ".git", "runs", "mlruns", "mlartifacts", "mlflow.db", "mlflow.db-wal"]
SHARED = "/mnt/fttune"


def read(name: str) -> Config:
    return yaml.safe_load((ROOT / name).read_text())


def validate(config: Config) -> Config:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def commands(config: Config, *keys: str) -> list[str]:
    return [command for key in keys for command in config.get(key, [])]


def node_types(config: Config) -> Config:
    return config.get("available_node_types", {})


def too_many_workers(config: Config) -> bool:
    return any(kind.get("max_workers", 0) > config["max_workers"] for kind in node_types(config).values())


def workers_that_always_run(config: Config) -> bool:
    return any(kind.get("min_workers", 0) for kind in node_types(config).values())


def mounts_of_nothing(config: Config) -> bool:
    return not all((ROOT / source).exists() for source in config["file_mounts"].values())


def legacy_fields(config: Config) -> bool:
    return not {"head_node", "worker_nodes", "min_workers"}.isdisjoint(config)


def workers_at_full_price(config: Config) -> bool:
    workers = [kind["node_config"] for name, kind in node_types(config).items() if name != config["head_node_type"]]
    return any(worker.get("InstanceMarketOptions") != {"MarketType": "spot"} for worker in workers)


def head_that_may_vanish(config: Config) -> bool:
    heads = [kind["node_config"] for name, kind in node_types(config).items() if name == config["head_node_type"]]
    return any("InstanceMarketOptions" in head for head in heads)


def images_of_rays_choice(config: Config) -> bool:
    images = [kind["node_config"].get("ImageId", "") for kind in node_types(config).values()]
    return not all(re.fullmatch(r"ami-[0-9a-f]{17}", image) for image in images)


def machines_open_to_the_world(config: Config) -> bool:
    """Ray's own security group lets ssh in from everywhere."""
    return not all(kind["node_config"].get("SecurityGroupIds") for kind in node_types(config).values())


def listens_everywhere(config: Config) -> bool:
    return any(EVERYWHERE.search(command) for command in commands(config, *COMMANDS, *STARTS))


def dashboard_off_loopback(config: Config) -> bool:
    heads = [command for command in commands(config, *STARTS) if "ray start --head" in command]
    return not heads or not all("--dashboard-host=127.0.0.1" in command.split() for command in heads)


def copies_of_results(config: Config) -> bool:
    return not all(any(fnmatch(name, pattern) for pattern in config["rsync_exclude"]) for name in PRIVATE)


def token_kept_from_workers(config: Config) -> bool:
    return "~/.ray/auth_token" not in config.get("cluster_synced_files", [])


def token_for_every_reader(config: Config) -> bool:
    """Ray writes it readable for all users of the machine."""
    makers = [command for command in commands(config, *COMMANDS) if "get-auth-token --generate" in command]
    return not makers or not all(command.startswith("umask 077") for command in makers)


def folder_that_nobody_shares(config: Config) -> bool:
    return not any(SHARED in command for command in config.get("initialization_commands", []))


CHECKS: list[Callable[[Config], bool]] = [
    too_many_workers,
    workers_that_always_run,
    mounts_of_nothing,
    legacy_fields,
    workers_at_full_price,
    head_that_may_vanish,
    images_of_rays_choice,
    machines_open_to_the_world,
    listens_everywhere,
    dashboard_off_loopback,
    copies_of_results,
    token_kept_from_workers,
    token_for_every_reader,
    folder_that_nobody_shares,
]


def faults(config: Config) -> list[str]:
    return [check.__name__ for check in CHECKS if check(config)]


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    prepared = validate(read(name))
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("name", FILES)
def test_the_file_has_no_fault_that_ray_would_not_see(name: str) -> None:
    assert faults(read(name)) == []


def set_in(path: str, value: Any) -> Callable[[Config], None]:
    """Put a value at a dotted path; a number is a place in a list."""

    def spoil(config: Config) -> None:
        *way, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        inner: Any = config
        for key in way:
            inner = inner[key]
        inner[last] = value

    return spoil


def replace(old: str, new: str, key: str = "head_start_ray_commands") -> Callable[[Config], None]:
    """Change the text of commands."""

    def spoil(config: Config) -> None:
        changed = [command.replace(old, new) for command in config[key]]
        assert changed != config[key]
        config[key] = changed

    return spoil


WORKER = "available_node_types.gpu_worker"


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (set_in(f"{WORKER}.max_workers", 5), "too_many_workers"),
        (set_in(f"{WORKER}.min_workers", 1), "workers_that_always_run"),
        (set_in("file_mounts./home/ubuntu/data", "no/such/folder"), "mounts_of_nothing"),
        (set_in("head_node", {}), "legacy_fields"),
        (set_in(f"{WORKER}.node_config.InstanceMarketOptions", {}), "workers_at_full_price"),
        (
            set_in("available_node_types.head.node_config.InstanceMarketOptions", {"MarketType": "spot"}),
            "head_that_may_vanish",
        ),
        (set_in(f"{WORKER}.node_config.ImageId", "latest_dlami"), "images_of_rays_choice"),
        (set_in(f"{WORKER}.node_config.SecurityGroupIds", []), "machines_open_to_the_world"),
        (set_in("setup_commands.0", "mlflow server --host 0.0.0.0"), "listens_everywhere"),
        (set_in("setup_commands.0", "mlflow server --host=::"), "listens_everywhere"),
        (set_in("rsync_exclude", [".venv", ".git"]), "copies_of_results"),
        (set_in("cluster_synced_files", []), "token_kept_from_workers"),
        (set_in("head_setup_commands", [".venv/bin/ray get-auth-token --generate"]), "token_for_every_reader"),
        (set_in("head_setup_commands", []), "token_for_every_reader"),
        (set_in("initialization_commands", []), "folder_that_nobody_shares"),
        (replace(" --dashboard-host=127.0.0.1", ""), "dashboard_off_loopback"),
        (replace("--dashboard-host=127.0.0.1", "--dashboard-host=10.0.0.1"), "dashboard_off_loopback"),
    ],
)
def test_each_check_can_fail(spoil: Callable[[Config], None], fault: str) -> None:
    config = read("cluster.yaml")
    spoil(config)
    assert fault in faults(config)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (set_in("headd", 1), "headd"),
        (set_in(f"{WORKER}.resources", {"GPU": 0.5}), "0.5"),
        (set_in("head_node_type", "hed"), "head_node_type"),
        (set_in(f"{WORKER}.min_workers", 9), "min_workers"),
        (set_in("provider.type", "awz"), "awz"),
    ],
)
def test_ray_refuses_what_it_checks(spoil: Callable[[Config], None], reason: str) -> None:
    config = read("cluster.yaml")
    spoil(config)
    with pytest.raises(Exception, match=re.escape(reason)):
        validate(config)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A machine's home folder as the set-up leaves it, with a `ray` that tells how it was called."""
    (tmp_path / "fttune" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "fttune" / "deploy").symlink_to(ROOT / "deploy")
    ray = tmp_path / "fttune" / ".venv" / "bin" / "ray"
    ray.write_text('#!/bin/sh\necho "$1 mode=$RAY_AUTH_MODE $FTTUNE_STORE $FTTUNE_CACHE $FTTUNE_STATE"\n')
    ray.chmod(0o755)
    return tmp_path


def shell(command: str, home: Path) -> str:
    bare = {"HOME": str(home), "PATH": "/usr/bin:/bin", "RAY_HEAD_IP": "10.0.0.1"}
    done = subprocess.run(["bash", "-c", command], env=bare, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def starts(config: Config, home: Path) -> list[str]:
    """What every `ray start` of a cluster finds in its environment."""
    return [shell(command, home) for command in commands(config, *STARTS) if "ray start" in command]


@pytest.mark.parametrize("name", FILES)
def test_ray_starts_with_its_token_and_the_shared_folders(name: str, home: Path) -> None:
    expected = f"start mode=token {SHARED}/store {SHARED}/features {SHARED}/state"
    assert starts(read(name), home) == [expected, expected]


@pytest.mark.parametrize("key", STARTS)
def test_a_start_without_a_token_would_show(key: str, home: Path) -> None:
    config = read("cluster.yaml")
    replace(". deploy/environment.sh && ray", ".venv/bin/ray", key)(config)
    assert any("mode=token" not in start for start in starts(config, home))


@pytest.mark.parametrize("script", sorted((ROOT / "deploy").glob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_parse_and_listen_nowhere_but_on_loopback(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert not EVERYWHERE.search(script.read_text())


def test_the_tracking_server_listens_on_loopback() -> None:
    assert "mlflow server --host 127.0.0.1 " in (ROOT / "deploy" / "mlflow.sh").read_text()


def test_no_script_shows_the_address_of_a_database_to_who_lists_processes() -> None:
    for script in (ROOT / "deploy").glob("*.sh"):
        assert "--backend-store-uri" not in script.read_text()


def test_a_server_on_another_machine_is_neither_started_nor_told_of(tmp_path: Path) -> None:
    elsewhere = {"MLFLOW_TRACKING_URI": "https://team:s3cret@mlflow.example", "FTTUNE_SHARED": str(tmp_path / "shared")}
    started = [ROOT / "deploy" / "mlflow.sh"]
    done = subprocess.run(started, env={**os.environ, **elsewhere}, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not (tmp_path / "shared").exists()


STAND_INS = {
    "scontrol": "#!/bin/sh\necho here\n",
    "srun": '#!/bin/sh\nshift\n"$@"\n',
    "ray": '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\n"$@"\n',
    "fttune": f"""#!{sys.executable}
import pathlib, signal, sys, time
def end(*_):
    time.sleep(0.5)
    pathlib.Path("saved").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
pathlib.Path("up").touch()
time.sleep(60)
""",
}


def test_a_job_of_slurm_whose_time_is_nearly_over_tells_the_driver_and_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a")
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "7",
    }
    job = subprocess.Popen(
        ["bash", ROOT / "deploy" / "slurm.sh", "sweep.yaml"],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **slurm},
    )
    wait_until((tmp_path / "up").exists)
    job.terminate()  # as --signal=B:TERM does: the script alone hears it
    assert job.wait(30) == 130
    assert (tmp_path / "saved").exists()


def test_a_broken_script_would_not_parse(tmp_path: Path) -> None:
    broken = tmp_path / "slurm.sh"
    broken.write_text((ROOT / "deploy" / "slurm.sh").read_text().replace("$(scontrol", "$((scontrol", 1))
    assert subprocess.run(["bash", "-n", broken], capture_output=True, check=False).returncode


def test_what_the_dockerfile_copies_is_there() -> None:
    lines = [line.split() for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines()]
    sources = [source for line in lines if line[:1] == ["COPY"] for source in line[1:-1]]
    assert sources
    assert all((ROOT / source).exists() for source in sources)


def test_workers_of_a_cluster_are_told_to_keep_freed_memory_as_those_of_one_machine_are() -> None:
    from fttune.sweep.cluster import ALLOCATOR

    words = ["bash", "-c", ". deploy/environment.sh && env"]
    done = subprocess.run(words, cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) >= {f"{name}={value}" for name, value in ALLOCATOR.items()}
