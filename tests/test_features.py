"""The cache of frozen features is exact, shared, repaired, and computes what is missing and nothing else."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fttune.feature_cache import FeatureKey, FeatureTable, reach
from fttune.features import Norm, features_at, showings
from fttune.training.inputs import FeatureInputs
from stores import wait_until
from values import HPARAMS

KEY = FeatureKey(weights="w", data="d", backbone="tiny", resize="crop", image_size=8, norm="n")


class Network:
    """Stands in for a pass over images: layer l of showing n is [n, l], and it counts what it is asked for."""

    def __init__(self, batch: int = 2) -> None:
        self.asked: list[tuple[list[int], list[int]]] = []
        self._batch = batch

    def __call__(self, missing: np.ndarray, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        self.asked.append((missing.tolist(), list(layers)))
        for start in range(0, len(missing), self._batch):
            some = torch.tensor(missing[start : start + self._batch], dtype=torch.float32)
            yield {layer: torch.stack([some, torch.full_like(some, layer)], 1) for layer in layers}


def whole(table: FeatureTable) -> list[list[float]]:
    return table.take(torch.arange(len(table))).tolist()


def want(root: Path, wanted: list[int], layers: list[int], network: Network, **options: int) -> dict[int, FeatureTable]:
    return reach(root, KEY, layers, np.array(wanted), network, **options)


def test_one_pass_reaches_every_layer_and_is_never_made_again(tmp_path: Path) -> None:
    network = Network()
    tables = want(tmp_path, [5, 3, 9], [1, 4], network)
    assert network.asked == [([3, 5, 9], [1, 4])]
    assert {layer: whole(table) for layer, table in tables.items()} == {
        layer: [[5, layer], [3, layer], [9, layer]] for layer in (1, 4)
    }
    assert whole(want(tmp_path, [9, 9, 3], [4], network)[4]) == [[9, 4], [9, 4], [3, 4]]
    assert len(network.asked) == 1


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    network = Network()
    want(tmp_path, [1, 2], [3], network)
    want(tmp_path, [2, 7], [3, 5], network)
    assert sorted(network.asked[1:]) == [([2], [5]), ([7], [3, 5])]
    want(tmp_path, [1, 2, 7], [3], network)
    assert len(network.asked) == 3


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 30), min_size=1), st.sets(st.integers(1, 4), min_size=1)), max_size=5)
)
def test_whatever_was_asked_before_the_answer_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[list[int], set[int]]]
) -> None:
    root, network = tmp_path_factory.mktemp("cache"), Network(batch=3)
    for wanted, layers in requests:
        for layer, table in want(root, wanted, sorted(layers), network).items():
            assert whole(table) == [[number, layer] for number in wanted]
    done = [(number, layer) for numbers, layers in network.asked for number in numbers for layer in layers]
    assert len(done) == len(set(done))


def test_processes_that_ask_at_once_do_the_work_once(tmp_path: Path) -> None:
    network = Network()
    threads = [Thread(target=want, args=(tmp_path, [1, 2, 3], [2], network)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert network.asked == [([1, 2, 3], [2])]


def test_what_no_other_computes_is_computed_meanwhile_and_the_rest_waited_for(tmp_path: Path) -> None:
    both, asked = Barrier(2, timeout=30), list[list[int]]()
    tables: dict[str, list[list[float]]] = {}

    def forward(missing: np.ndarray, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        asked.append(missing.tolist())
        both.wait()  # neither ends before the other has begun
        yield from Network()(missing, layers)

    def ask(name: str, wanted: list[int]) -> None:
        tables[name] = whole(reach(tmp_path, KEY, [3], np.array(wanted), forward)[3])

    threads = [Thread(target=ask, args=("first", [1, 2, 3])), Thread(target=ask, args=("second", [5, 3, 2]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, asked)) in ([1, 3], [2, 3])
    assert sorted(number for some in asked for number in some) == [1, 2, 3, 5]
    assert tables == {"first": [[1, 3], [2, 3], [3, 3]], "second": [[5, 3], [3, 3], [2, 3]]}
    assert not [*tmp_path.rglob("*.claim")]


def test_what_a_process_had_claimed_when_it_was_killed_is_computed_by_who_waited(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from test_features import KEY, np, reach
def forward(missing, layers):
    print("claimed", flush=True)
    time.sleep(600)
reach(Path({str(tmp_path)!r}), KEY, [3], np.array([1, 2]), forward)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "claimed\n"
        network, found = Network(), list[object]()
        waiting = Thread(target=lambda: found.append(whole(want(tmp_path, [2, 7], [3], network)[3])))
        waiting.start()
        wait_until(lambda: network.asked == [([7], [3])], 30)
        other.kill()
    waiting.join(30)
    assert found == [[[2, 3], [7, 3]]]
    assert network.asked == [([7], [3]), ([2], [3])]
    assert not [*tmp_path.rglob("*.claim")]


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_truncated_file_is_computed_again(tmp_path: Path, keep: float) -> None:
    want(tmp_path, [1, 2], [3], Network())
    (file,) = tmp_path.glob("*/*.arrow")
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    assert whole(want(tmp_path, [2, 1], [3], Network())[3]) == [[2, 3], [1, 3]]


def test_what_a_trial_opens_does_not_grow_with_the_trials_before_it(tmp_path: Path) -> None:
    network = Network()
    for number in range(50):
        want(tmp_path, [number], [3], network)
    assert len(list(tmp_path.rglob("*.arrow"))) <= 17
    assert whole(want(tmp_path, list(range(50)), [3], network)[3]) == [[number, 3] for number in range(50)]
    assert len(network.asked) == 50, "nothing was lost when files were put together"


def test_what_was_damaged_after_it_was_first_read_is_computed_again(tmp_path: Path) -> None:
    network = Network()
    want(tmp_path, [1, 2], [3], network)
    want(tmp_path, [1, 2], [3], network)
    (path,) = tmp_path.rglob("*.arrow")
    content = bytearray(path.read_bytes())
    place = content.index(np.array([1, 3], np.float32).tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert whole(want(tmp_path, [1, 2], [3], network)[3]) == [[1, 3], [2, 3]]
    assert len(network.asked) == 2


def test_only_what_is_asked_for_is_read_to_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = Network()
    want(tmp_path, [1], [3], network)
    (path,) = tmp_path.rglob("*.arrow")
    content = bytearray(path.read_bytes())
    content[content.index(np.array([1, 3], np.float32).tobytes())] ^= 1
    path.write_bytes(content)
    assert whole(want(tmp_path, [2], [3], network)[3]) == [[2, 3]]
    assert path.exists()
    assert not caplog.text
    assert whole(want(tmp_path, [1], [3], network)[3]) == [[1, 3]]
    assert "damaged features" in caplog.text


def test_who_finds_everything_waits_for_nobodys_pass(tmp_path: Path) -> None:
    want(tmp_path, [1, 2], [3], Network())
    seen: list[object] = []

    def forward(missing: np.ndarray, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        other = Thread(target=lambda: seen.append(whole(want(tmp_path, [2, 1], [3], Network())[3])), daemon=True)
        other.start()
        other.join(30)
        assert seen == [[[2, 3], [1, 3]]]
        yield from Network()(missing, layers)

    reach(tmp_path, KEY, [3], np.array([7]), forward)
    assert seen


def test_what_is_whole_is_read_where_nothing_may_be_written_nor_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network()
    want(tmp_path, [1, 2], [3], network)

    def refused(*words: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "another user's file")

    # The superuser, whom tests may run as, is refused nothing.
    for module, name in ((os, "utime"), (os, "mkdir"), (os, "unlink"), (fcntl, "flock")):
        monkeypatch.setattr(module, name, refused)
    assert whole(want(tmp_path, [2, 1], [3], network, room=10**9)[3]) == [[2, 3], [1, 3]]
    assert len(network.asked) == 1


def test_who_finds_the_layer_that_it_reads_computes_no_other(tmp_path: Path) -> None:
    network = Network()
    want(tmp_path, [1, 2], [3], network)
    assert whole(want(tmp_path, [2, 1], [1, 3], network, reads=3)[3]) == [[2, 3], [1, 3]]
    assert len(network.asked) == 1
    assert {*want(tmp_path, [1, 2], [1, 3], network, reads=1)} == {1}
    assert network.asked[1:] == [([1, 2], [1])]


def test_an_error_in_computing_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(missing: np.ndarray, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        yield {3: torch.zeros(1, 2)}
        raise OverflowError

    with pytest.raises(OverflowError):
        reach(tmp_path, KEY, [3], np.array([1, 2]), fail)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_file_that_another_process_removes_meanwhile_is_no_failure(tmp_path: Path) -> None:
    want(tmp_path, [1, 2], [3], Network())

    def forward(missing: np.ndarray, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
        (path,) = tmp_path.rglob("3-*.arrow")
        path.unlink()
        yield from Network()(missing, layers)

    tables = reach(tmp_path, KEY, [3, 5], np.array([1, 2]), forward)
    assert {layer: whole(table) for layer, table in tables.items()} == {n: [[1, n], [2, n]] for n in (3, 5)}


def test_making_room_passes_over_what_goes_away_by_itself(tmp_path: Path) -> None:
    want(tmp_path, [1], [2], Network())
    (there,) = tmp_path.rglob("*.arrow")
    there.with_name("9-gone.arrow").symlink_to("nowhere")  # listed, and gone when it is looked at
    want(tmp_path, [2], [2], Network(), room=0)
    assert not there.exists()


def test_what_a_killed_process_left_half_written_goes_with_the_next_use(tmp_path: Path) -> None:
    folder = tmp_path / KEY.folder
    folder.mkdir()
    half = folder / ".3-0123456789abcdef.arrow.4711.tmp"
    half.write_bytes(b"ARROW1")
    want(tmp_path, [1], [3], Network())
    assert not half.exists()


def test_where_the_disk_is_full_only_the_layer_that_is_read_is_held(tmp_path: Path) -> None:
    network, limits = Network(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        tables = reach(tmp_path, KEY, [3, 5], np.array([2, 1, 2]), network, reads=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {layer: whole(table) for layer, table in tables.items()} == {5: [[2, 5], [1, 5], [2, 5]]}
    assert network.asked[-1] == ([1, 2], [5])


def test_a_table_without_room_on_the_device_is_read_batch_by_batch() -> None:
    device = torch.device("meta")  # as good as any that is not a CPU
    table = FeatureTable.of(torch.arange(12.0).view(6, 2))
    assert table.to(device, 47) is table
    resident = table.to(device, 48)
    assert (resident.device, len(resident)) == (device, 6)
    for held in (table, resident):
        inputs = FeatureInputs(table=held, images=6, hparams=HPARAMS, device=device)
        assert inputs.show(slice(0, 4)).device == inputs.draw(torch.tensor([5]), torch.Generator()).device == device
    assert table.to(torch.device("cpu"), 0) is table


@pytest.mark.parametrize("small", [0, 2**26])
def test_what_does_not_fit_in_memory_is_written_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr("fttune.feature_cache._SEGMENT", 30)
    monkeypatch.setattr("fttune.feature_cache._SMALL", small)
    table = want(tmp_path, list(range(11)), [2], Network())[2]
    assert len(list(tmp_path.glob("*/*.arrow"))) == 3
    assert whole(table) == [[number, 2] for number in range(11)]
    assert table.take(torch.tensor([10, 0, 4, 10])).tolist() == [[10, 2], [0, 2], [4, 2], [10, 2]]


def test_beyond_its_room_the_cache_forgets_what_was_longest_unused(tmp_path: Path) -> None:
    network, most = Network(), 0
    for number in (1, 2, 3, 1):
        table = want(tmp_path, [number], [2], network, room=most or 10**6)[2]
        most = most or 2 * sum(file.stat().st_size for file in tmp_path.glob("*/*.arrow"))
        assert whole(table) == [[number, 2]]
    assert [asked for asked, _ in network.asked] == [[1], [2], [3], [1]]
    want(tmp_path, [3], [2], network, room=most)
    assert len(network.asked) == 4
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*.arrow")) <= most


@pytest.mark.parametrize("name", [field.name for field in fields(FeatureKey)])
def test_every_part_of_a_key_leads_to_another_entry(name: str) -> None:
    value = getattr(KEY, name)
    assert replace(KEY, **{name: value + 1 if isinstance(value, int) else value + "x"}).folder != KEY.folder


def test_showings_tell_images_and_views_apart() -> None:
    numbers = showings(np.arange(40), np.array([0, 1, 255]))
    assert numbers.shape == (3, 40)
    assert len(set(numbers.ravel().tolist())) == 120


@pytest.fixture
def net() -> nn.Sequential:
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.Sequential(convolution, nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()), nn.Linear(4 * 36, 2)).eval()


def test_features_are_the_inputs_of_the_stages(net: nn.Sequential) -> None:
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    norm = Norm(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    (reached,) = features_at(net, (1, 2), [images], norm)
    with torch.inference_mode():
        views = (images / 255 - 0.5) / 0.5
        for layer in (1, 2):
            assert torch.allclose(reached[layer], net[:layer](views), atol=1e-5)
