"""Of the networks that a sweep's trials leave, the best of each dataset and backbone is kept, and no other stays."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fttune.backbones import catalog as backbones
from fttune.backbones.tensors import read_tensors
from fttune.classifier import part
from fttune.classifier.network import Classifier
from fttune.config import Sweep
from fttune.errors import UsageError
from fttune.plan import pending
from fttune.record import RunRecord
from fttune.sweep.driver import Choice, choose
from fttune.sweep.keeping import Keeping, expected
from fttune.sweep.meter import Meter
from fttune.sweep.tally import Tally
from fttune.tracking.models import Held, Models
from fttune.tracking.runs import Tracker
from fttune.tracking.writer import Writer
from fttune.trained import export_network
from fttune.trial import Trial
from stores import free_port, make_database, record_of, serving, wait_until
from values import make_trial

CLASSES = ("ant", "bee")
GRID = {"datasets": {"digits": [5], "glyphs": [5]}, "backbones": ["tiny"], "random_top": [1]}


def sweep_of(keep: str = "best", name: str = "small") -> Sweep:
    return Sweep.model_validate({"name": name, "grid": GRID, "train": {"keep": keep}})


def trial_of(seed: int, **changes: Any) -> Trial:
    return make_trial("F(1-3)R(4)", seed=seed, weights_digest=backbones.weights_digest("tiny"), **changes)


def leave(folder: Path, trial: Trial, accuracy: float, loss: float = 0.5) -> RunRecord:
    """What a trial on a worker does at its end; its values are its seed."""
    state = {"3.1.weight": torch.full((2, 32), float(trial.seed)), "3.1.bias": torch.zeros(2)}
    facts = {"classes": CLASSES, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    part.leave(folder, trial.id, state, **facts, val_accuracy=accuracy, val_loss=loss)
    return record_of(trial, val_accuracy=accuracy, image_size=32)


class Play:
    """A sweep's driver as far as networks go, on a tracker of its own."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.tracker, self.folder = Tracker(uri, "fttune"), folder / "networks"
        self.models, self.store = Models(self.tracker), folder / "mlartifacts"
        self.told: list[str] = []

    def log(self, sweep: Sweep, records: Sequence[RunRecord]) -> None:
        parent = self.tracker.open_sweep(sweep.name)
        for record in records:
            run = self.tracker.open_trial(parent, record.trial_id, name="x", at=1)
            self.tracker.start_trial(run, params={}, tags={})
            self.tracker.finish_trial(run, record, "", 2)

    def run(self, sweep: Sweep, trials: Sequence[Trial], ended: Mapping[Trial, float] | None = None) -> None:
        """Of a sweep's trials some end, in this order and with these accuracies on val, and the sweep with them."""
        keeping = Keeping(sweep, self.folder, trials, self.tracker.records())
        records = [leave(self.folder, trial, accuracy) for trial, accuracy in (ended or {}).items()]
        for record in records:
            keeping.finished(record)
        self.log(sweep, records)
        self.settle(keeping)

    def settle(self, keeping: Keeping) -> None:
        keeping.settle(self.models, lambda *words: " ".join(["fttune run", *words]), self.told.append)

    def kept(self, sweep: str = "small") -> dict[str, str]:
        """The seeds of the networks that a sweep keeps, by dataset, read from the store's own files."""
        held = [one for one in self.models.kept(sweep) if sweep in one.keepers]
        return {one.record.dataset: self.seed_in(one) for one in held}

    def seed_in(self, held: Held) -> str:
        (file,) = self.store.glob(f"{held.run_id}/artifacts/network/network.safetensors")
        (weight,) = {value.item() for value in read_tensors(file)["3.1.weight"].flatten()}
        assert weight == held.record.seed
        return str(held.record.seed)

    def files(self) -> list[int]:
        """How many networks, and how many models, lie in the store."""
        return [len(list(self.store.rglob(name))) for name in ("network.safetensors", "model.pt2")]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path, make_database(tmp_path))


def test_the_best_on_val_is_kept_and_never_more_than_the_best_lie_on_disk(play: Play) -> None:
    trials = [*(trial_of(seed) for seed in range(4)), trial_of(9, dataset="glyphs")]
    keeping = Keeping(sweep_of(), play.folder, trials, [])
    records = []
    # The third ties with the second on accuracy and has the lower loss; the test set would choose the first.
    for trial, accuracy, loss in zip(trials, (0.5, 0.75, 0.75, 0.7, 0.1), (0.1, 0.6, 0.5, 0.4, 3.0), strict=True):
        record = replace(leave(play.folder, trial, accuracy, loss), test_accuracy=1 - accuracy)
        records.append(record)
        keeping.finished(record)
        assert len(list(play.folder.iterdir())) <= 1 + (trial.cell.dataset == "glyphs")
    play.log(sweep_of(), records)
    play.settle(keeping)
    assert play.kept() == {"digits": "2", "glyphs": "9"}
    assert play.files() == [2, 2]
    assert not play.folder.exists()
    assert [line.partition(":")[0] for line in play.told] == [
        "kept the network of digits/5 F(1-3)R(4) s2, tiny, val 0.750",
        "kept the network of glyphs/5 F(1-3)R(4) s9, tiny, val 0.100",
    ]


def test_mlflow_loads_what_is_kept_and_says_what_fttune_says(play: Play) -> None:
    import mlflow

    trial = trial_of(1)
    play.run(sweep_of(), [trial], {trial: 0.5})
    held = play.models.find(trial.id[:6])
    assert held == play.models.find(held.run_id)
    network, card = Classifier.load(play.models.fetch(held, play.store.parent))
    mlflow.set_tracking_uri(play.tracker.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{held.model_id}")
    shown = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(loaded.predict(shown), network.probabilities(torch.from_numpy(shown)), atol=1e-6)
    metadata = loaded.metadata.metadata or {}
    assert metadata["classes"] == list(CLASSES) == list(card.classes)
    assert metadata["record"]["trial_id"] == trial.id
    (model,) = play.store.rglob("MLmodel")
    assert "fttune" not in (model.parent / "requirements.txt").read_text()


def test_a_network_that_is_beaten_later_leaves_the_store(play: Play) -> None:
    first, second, third = (trial_of(seed) for seed in (1, 2, 3))
    trials = [first, second, third]
    play.run(sweep_of(), trials, {first: 0.5})
    play.run(sweep_of(), trials, {second: 0.4})
    assert play.kept() == {"digits": "1"}
    play.run(sweep_of(), trials, {third: 0.6})
    assert play.kept() == {"digits": "3"}
    assert play.files() == [1, 1]
    assert play.models.find(first.id).val_loss is None


def test_a_server_is_given_networks_and_asked_to_remove_them(tmp_path: Path) -> None:
    port, first, second = free_port(), trial_of(1), trial_of(2)
    with serving(make_database(tmp_path), port, tmp_path):
        play = Play(tmp_path, f"http://127.0.0.1:{port}")
        play.run(sweep_of(), [first, second], {first: 0.5})
        assert play.files() == [1, 1]
        play.run(sweep_of(), [first, second], {second: 0.6})
        assert play.files() == [1, 1]
        held = play.models.find(second.id)
        _, card = Classifier.load(play.models.fetch(held, tmp_path))
        assert card.record.trial_id == second.id


def test_two_sweeps_keep_a_network_until_neither_wants_it(play: Play) -> None:
    shared, better = trial_of(1), trial_of(2)
    other = sweep_of(name="other")
    play.run(sweep_of(), [shared], {shared: 0.5})
    play.log(other, ())
    play.tracker.adopt(play.tracker.open_sweep("other"), [shared.id])
    play.run(other, [shared])
    assert play.kept("other") == {"digits": "1"}
    play.run(other, [shared, better], {better: 0.6})
    assert (play.kept("small"), play.kept("other")) == ({"digits": "1"}, {"digits": "2"})
    play.tracker.adopt(play.tracker.open_sweep("small"), [better.id])
    play.run(sweep_of(), [shared, better])
    assert (play.kept("small"), play.kept("other")) == ({"digits": "2"}, {"digits": "2"})
    assert play.files() == [1, 1]


def test_what_a_killed_driver_left_is_kept_by_the_next_one(play: Play) -> None:
    done, lost = trial_of(1), trial_of(2)
    play.log(sweep_of(), [leave(play.folder, done, 0.5)])
    leave(play.folder, lost, 0.9)  # nobody was told of its end: it will run again
    (play.folder / ".half.safetensors.1.tmp").write_bytes(b"half")
    keeping = Keeping(sweep_of(), play.folder, [done, lost], play.tracker.records())
    assert [path.name for path in play.folder.iterdir()] == [f"{done.id}.safetensors"]
    play.settle(keeping)
    assert play.kept() == {"digits": "1"}


def test_all_keeps_all_and_best_afterwards_the_best(play: Play) -> None:
    trials = [trial_of(1), trial_of(2)]
    play.run(sweep_of("all"), trials, dict(zip(trials, (0.5, 0.6), strict=True)))
    assert play.files() == [2, 2]
    play.run(sweep_of(), trials)
    assert play.kept() == {"digits": "2"}
    assert play.files() == [1, 1]


def test_a_best_trial_without_a_network_is_told_with_what_to_do(play: Play) -> None:
    old, new = trial_of(1), trial_of(2)
    play.log(sweep_of(), [record_of(old, val_accuracy=0.9)])
    play.run(sweep_of(), [old, new], {new: 0.5})
    assert play.kept() == {"digits": "2"}
    assert play.told[-1].startswith("no network of digits/5 F(1-3)R(4) s1, the best with tiny on val: ")
    assert play.told[-1].endswith(f"fttune run --again {old.id}")


def test_what_a_search_asks_for_later_is_missed_too(play: Play) -> None:
    shared, mine = trial_of(1), trial_of(2)
    play.log(sweep_of(), [record_of(shared, val_accuracy=0.9)])
    keeping = Keeping(sweep_of(), play.folder, [mine], play.tracker.records())
    record = leave(play.folder, mine, 0.5)
    keeping.finished(record)
    keeping.more([], [shared], 0)
    play.log(sweep_of(), [record])
    play.settle(keeping)
    assert play.told[-1].endswith(f"fttune run --again {shared.id}")


def test_a_done_trial_is_run_again_for_its_network_and_its_record_stays(play: Play) -> None:
    trial = trial_of(1)
    before = record_of(trial, val_accuracy=0.5, image_size=32, seconds=1.0)
    play.log(sweep_of(), [before])
    plan = pending([trial, trial_of(2)], play.tracker.records())
    assert choose(plan, Choice(again=trial.id[:6])) == [trial]
    tally = Tally(plan, [trial], Meter())
    play.run(sweep_of(), [trial], {trial: 0.5})
    tally.finished(replace(before, seconds=9.0))
    assert (tally.counts().done, tally.counts().total) == (1, 2)
    assert play.kept() == {"digits": "1"}
    assert play.tracker.records() == [before]
    with pytest.raises(UsageError, match="--again: no done trial of this sweep begins with '0123'"):
        choose(plan, Choice(again="0123"))


def test_networks_wait_where_the_tracker_is_away(play: Play) -> None:
    trial = trial_of(1)
    record = leave(play.folder, trial, 0.5)
    play.log(sweep_of(), [record])
    keeping = Keeping(sweep_of(), play.folder, [trial], [record])
    away = Models(Tracker(f"sqlite:///{play.folder.parent}/nowhere/mlflow.db", "fttune"))
    (play.folder.parent / "nowhere").mkdir()
    (play.folder.parent / "nowhere" / "mlflow.db").write_bytes(b"no database" * 100)
    keeping.settle(away, lambda *words: "fttune run", play.told.append)
    assert play.told[-1].startswith(f"networks wait in {play.folder}: ")
    play.run(sweep_of(), [trial])
    assert play.kept() == {"digits": "1"}


def test_a_network_is_kept_once_the_last_trial_of_its_dataset_has_ended_and_told_of_in_the_end(play: Play) -> None:
    first, best, other = trial_of(1), trial_of(2), trial_of(9, dataset="glyphs")
    keeping = Keeping(sweep_of(), play.folder, [first, best, other], [])
    keeping.keep_when_decided([first, best, other], play.models, lambda action: action())
    records = [leave(play.folder, trial, accuracy) for trial, accuracy in ((first, 0.5), (best, 0.6), (other, 0.1))]
    play.log(sweep_of(), records)
    for record, kept in zip(records, ({}, {"digits": "2"}, {"digits": "2", "glyphs": "9"}), strict=True):
        keeping.finished(record)
        wait_until(lambda kept=kept: play.kept() == kept)
    early, told = {one.model_id for one in play.models.kept("small")}, list(play.told)
    play.settle(keeping)
    assert {one.model_id for one in play.models.kept("small")} == early
    assert told == []
    assert [line.partition(",")[0] for line in play.told] == [
        "kept the network of digits/5 F(1-3)R(4) s2",
        "kept the network of glyphs/5 F(1-3)R(4) s9",
    ]
    assert not play.folder.exists()


def test_early_too_what_is_kept_already_competes(play: Play) -> None:
    first, second = trial_of(1), trial_of(2)
    play.run(sweep_of(), [first, second], {first: 0.6})
    keeping = Keeping(sweep_of(), play.folder, [first, second], play.tracker.records())
    keeping.keep_when_decided([second], play.models, lambda action: action())
    record = leave(play.folder, second, 0.5)
    play.log(sweep_of(), [record])
    keeping.finished(record)
    play.settle(keeping)
    assert play.kept() == {"digits": "1"}
    assert len(play.told) == 1


def test_the_second_best_is_not_kept_early_where_the_best_is_seen_late(play: Play) -> None:
    second, best = trial_of(1), trial_of(2)
    keeping, tried = Keeping(sweep_of(), play.folder, [second, best], []), list[Any]()
    keeping.keep_when_decided([second, best], play.models, lambda action: tried.append(action()))
    records = [leave(play.folder, second, 0.5), leave(play.folder, best, 0.6)]
    play.log(sweep_of(), records)
    file = part.file_of(play.folder, best.id)
    away = file.rename(play.folder.parent / "away")
    for record in records:
        keeping.finished(record)
    tried[0].result()
    assert play.kept() == {}
    away.rename(file)
    play.settle(keeping)
    assert play.kept() == {"digits": "2"}
    assert len(play.told) == 1


def test_beside_a_writer_a_network_is_kept_while_another_trial_runs(play: Play, tmp_path: Path) -> None:
    ended, running = trial_of(1), trial_of(9, dataset="glyphs")
    keeping = Keeping(sweep_of(), play.folder, [ended, running], [])
    with Writer(play.tracker, tmp_path / "spool", "small") as writer:
        keeping.keep_when_decided([ended, running], play.models, writer.then)
        writer.started(running)
        writer.started(ended)
        record = leave(play.folder, ended, 0.5)
        writer.finished(record)
        keeping.finished(record)
        wait_until(lambda: play.kept() == {"digits": "1"})


def test_what_goes_wrong_early_is_done_in_the_end(play: Play) -> None:
    trial = trial_of(1)
    keeping = Keeping(sweep_of(), play.folder, [trial], [])
    tried: list[Any] = []
    keeping.keep_when_decided([trial], play.models, lambda action: tried.append(action()))
    record = leave(play.folder, trial, 0.5)
    keeping.finished(record)
    tried[0].result()  # it is over, and the tracker knew of no such trial
    assert (play.kept(), play.told) == ({}, [])
    play.log(sweep_of(), [record])
    play.settle(keeping)
    assert play.kept() == {"digits": "1"}
    assert len(play.told) == 1


def test_a_search_may_ask_for_more_so_it_keeps_nothing_early(play: Play) -> None:
    search = {"sampler": "shared", "settings": 2, "space": {"lr": [0.001, 0.1]}}
    searching = Sweep.model_validate({"name": "small", "grid": GRID, "search": search})
    trial, asked = trial_of(1), list[object]()
    for sweep, calls in ((searching, 0), (sweep_of(), 1)):
        keeping = Keeping(sweep, play.folder, [trial], [])
        keeping.keep_when_decided([trial], play.models, asked.append)
        keeping.finished(leave(play.folder, trial, 0.5))
        assert len(asked) == calls


def test_what_keeping_takes_is_told_before(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.pth"
    weights.write_bytes(bytes(5_000))
    trials = [trial_of(seed, dataset=name) for name in ("digits", "glyphs") for seed in (1, 2, 3)]

    def asked(keep: str) -> tuple[int, int]:
        sweep = sweep_of(keep)
        data = sweep.data.model_copy(update={"weights": {"tiny": weights}})
        return expected(sweep.model_copy(update={"data": data}), trials)

    assert asked("best") == (2, 2 * 2 * 5_000)
    assert asked("all") == (6, 6 * 2 * 5_000)
    assert asked("none") == (0, 0)


@pytest.mark.parametrize("keep", ["best", "all"])
def test_what_tried_a_setting_leaves_no_network_however_good(
    play: Play, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", play.tracker.uri)
    tried, fold, repeat = trial_of(-1), trial_of(-2, fold=(0, 2)), trial_of(0)
    play.run(sweep_of(keep), [tried, fold, repeat], {tried: 0.9, fold: 0.9, repeat: 0.5})
    assert play.kept() == {"digits": "0"}
    assert play.files() == [1, 1]
    assert not play.folder.exists()
    assert not [line for line in play.told if line.startswith("no network")]
    with pytest.raises(UsageError, match=f"no network of {tried.id} .*: it tried a setting of a search") as error:
        export_network(tried.id, "safetensors", experiment="fttune", out=None, force=False, as_json=False)
    assert "--again" not in str(error.value)
    plan = pending([tried, fold, repeat], play.tracker.records())
    with pytest.raises(UsageError, match=f"--again: {tried.id} tried a setting"):
        choose(plan, Choice(again=tried.id))


@pytest.mark.parametrize(("keep", "settings", "networks"), [("best", 3, 1), ("all", 3, 12), ("all", 1, 6)])
def test_of_a_search_the_repeats_alone_are_counted_as_kept(keep: str, settings: int, networks: int) -> None:
    grid = {"datasets": {"digits": [5]}, "backbones": ["tiny"], "random_top": [1], "seeds": [0, 1, 2]}
    search = {"sampler": "shared", "settings": settings, "space": {"lr": [0.001, 0.1]}}
    sweep = Sweep.model_validate({"name": "small", "grid": grid, "train": {"keep": keep}, "search": search})
    first = [make_trial(spec, seed=-1) for spec in ("T(1-3)R(4)", "F(1-3)R(4)") for _ in range(settings)]
    assert expected(sweep, first)[0] == networks


def test_what_is_kept_is_no_part_of_a_trial() -> None:
    assert sweep_of("all").train.hparams() == sweep_of("none").train.hparams()


def test_networks_of_other_images_do_not_compete_and_leave_with_a_line(play: Play) -> None:
    before, after = trial_of(1), trial_of(2, data_digest="e")
    play.run(sweep_of(), [before], {before: 0.9})
    play.run(sweep_of(), [after])
    assert play.kept() == {"digits": "1"}  # nothing has been trained on the new images
    play.run(sweep_of(), [after], {after: 0.6})
    assert play.kept() == {"digits": "2"}
    assert play.files() == [1, 1]
    assert "the network of digits/5 F(1-3)R(4) s1, tiny, leaves: its dataset has other images now" in play.told
