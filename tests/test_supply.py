"""A machine of the cluster comes by its images once, or says in one line why it cannot."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import cloudpickle
import pytest

from fttune.bundle import Bundle
from fttune.code import digest
from fttune.config import load_sweep
from fttune.data import store
from fttune.data.store import is_built
from fttune.errors import MachineError
from fttune.sweep.driver import machine
from fttune.sweep.ground import Ground, prepare
from fttune.sweep.supply import Supply
from images import make_folder
from small_sweeps import write_sweep


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    loaded = load_sweep(write_sweep(tmp_path))
    return prepare(loaded, machine(loaded), lambda *_: None)


def job(ground: Ground) -> Bundle:
    return Bundle.alone(ground.trials[0])


def files(root: Path) -> dict[Path, int]:
    """Every file of a store and when it was written."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*.arrows")}


def ensure(sent: bytes) -> int:
    """What a worker does with what Ray brings it; how many images it decoded for that."""
    supply, bundle, root = cloudpickle.loads(sent)
    with patch.object(store, "decode", wraps=store.decode) as decode:
        supply.ensure(bundle, root)
        return decode.call_count


def test_processes_of_a_machine_that_ask_at_once_decode_once(ground: Ground, tmp_path: Path) -> None:
    root, supply = tmp_path / "node", Supply.of(ground)
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        decoded = list(pool.map(ensure, [cloudpickle.dumps((supply, job(ground), root))] * 8))
    images = sum(1 for path in (tmp_path / "photos").rglob("*") if path.is_file())
    assert sorted(decoded) == [0] * 7 + [images]
    written = files(root)
    assert len(written) == 1
    assert is_built(root=root, digest=job(ground).trials[0].data_digest, size=supply.size, resize=supply.resize)
    supply.ensure(job(ground), root)
    assert files(root) == written, "what is there is not decoded again"


def test_a_machine_that_has_neither_store_nor_images_says_so(ground: Ground, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "photos")
    expected = r"has no decoded images of mine in \S+node and cannot decode them .*FTTUNE_STORE"
    with pytest.raises(MachineError, match=expected):
        Supply.of(ground).ensure(job(ground), tmp_path / "node")
    assert not files(tmp_path / "node")


def test_other_images_under_the_same_name_are_not_trained_on(ground: Ground, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", images=1, seed=1)
    with pytest.raises(MachineError, match="are not those that the sweep was planned with"):
        Supply.of(ground).ensure(job(ground), tmp_path / "node")


def test_what_the_store_has_needs_no_images(ground: Ground, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "photos")
    Supply.of(ground).ensure(job(ground), tmp_path / "fttune_store")


def test_a_machine_without_the_weights_or_with_others_says_so(ground: Ground, tmp_path: Path) -> None:
    supply, root, file = Supply.of(ground), tmp_path / "fttune_store", tmp_path / "tiny.pth"
    elsewhere = replace(supply, weights={"tiny": file})
    with pytest.raises(MachineError, match=r"has no network tiny to start from \(.*tiny.pth: cannot read the weights"):
        elsewhere.ensure(job(ground), root)
    file.write_bytes(b"other weights")
    with pytest.raises(MachineError, match=r"the weights of tiny on .* are not those that the sweep was planned with"):
        elsewhere.ensure(job(ground), root)


def test_a_machine_with_other_code_than_the_drivers_says_so_and_goes_on(
    ground: Ground, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Supply.of(ground, code=digest()).ensure(job(ground), tmp_path / "fttune_store")
    assert not caplog.messages
    Supply.of(ground, code="0" * 64).ensure(job(ground), tmp_path / "fttune_store")
    assert "has other code of fttune than the driver" in caplog.text
