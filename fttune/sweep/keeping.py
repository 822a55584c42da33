"""Which trained networks a sweep keeps, of what its trials leave and of what it kept before: the best, or all."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from fttune.backbones import catalog
from fttune.classifier import part as parts
from fttune.classifier.card import Card, Preprocessing
from fttune.classifier.part import Part
from fttune.config import Sweep
from fttune.errors import FttuneError, UnreachableError, WeightsError
from fttune.files import writing
from fttune.record import CurvePoint, DistanceRecord, RunRecord
from fttune.tracking.fields import record_name
from fttune.tracking.models import FILE, Held, Models
from fttune.tracking.served import Served
from fttune.trial import Trial

Key = tuple[str, str, str]  # dataset, backbone, digest of the images: what the best is the best of
_STALE = "its dataset has other images now"
_COPIES = 2  # of each value: one as safetensors, one in the model that MLflow serves


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A network that takes part: left by its trial on disk, or in the tracker's store already."""

    record: RunRecord
    val_loss: float
    part: Part | None = None
    held: Held | None = None

    @classmethod
    def of(cls, held: Held) -> Self:
        return cls(record=held.record, val_loss=held.val_loss or 0.0, held=held)

    @property
    def key(self) -> Key:
        return _key(self.record)

    @property
    def rank(self) -> tuple[float, float, str]:
        """The lowest is the best: by val accuracy, then by val loss, then by the trial's id; never by the test set."""
        loss = self.val_loss if math.isfinite(self.val_loss) else math.inf
        return -(self.record.val_accuracy or 0.0), loss, self.record.trial_id


class Keeping:
    """A listener that holds what trials leave to the best of each dataset and backbone, and has it kept.

    `asked` are the sweep's trials, `known` the finished ones of its experiment: of these an earlier driver may have
    left something; what is left of any other is removed.
    """

    def __init__(self, sweep: Sweep, folder: Path | None, asked: Iterable[Trial], known: Iterable[RunRecord]) -> None:
        self._sweep, self._folder = sweep, folder
        trials = list(asked)
        self._asked = {trial.id for trial in trials}
        self._images = {(trial.cell.dataset, trial.data_digest) for trial in trials}
        self._done = {record.trial_id: record for record in known if record.status == "done"}
        self._left: dict[str, Standing] = {}  # by trial, what lies in the folder
        self._ended: list[RunRecord] = []  # in this run
        self._early = ThreadPoolExecutor(1, "fttune-keeping")  # keeps before the end
        self._told: list[str] = []  # of what was kept so
        self._decided: Callable[[Key], None] = lambda key: None  # called once no trial of it is left
        self._open: dict[Key, set[str]] = {}  # trials that have not ended
        if folder is not None:
            left = [path for path in parts.left_in(folder) if Part.trial_of(path) in self._done]
            parts.clear(folder, but=left)
            for path in left:
                self._enter(self._done[Part.trial_of(path)], path)

    def keep_when_decided(
        self, chosen: Iterable[Trial], models: Models, when_told: Callable[[Callable[[], object]], object]
    ) -> None:
        """Keep the best of a dataset and backbone once the last of its `chosen` trials has ended, while others run.

        It is done in a thread. `when_told` is given what is to be called, from any thread, once the tracker knows of
        that end. Whatever goes wrong then is left to `settle`. What a search still asks for is not known, so there
        nothing is kept early.
        """
        for trial in chosen:
            key = trial.cell.dataset, trial.cell.backbone, trial.data_digest
            self._open.setdefault(key, set()).add(trial.id)

        def decided(key: Key) -> None:
            left = self._left_of(key)  # now: trials of other keys go on, and with them the rest
            asked = [one for one in self._done.values() if one.trial_id in self._asked and _key(one) == key]
            reached = max((one.val_accuracy or 0.0 for one in asked), default=0.0)
            when_told(lambda: self._early.submit(self._keep_early, models, key, left, reached))

        if self._folder is not None and self._sweep.search.sampler == "fixed":
            self._decided = decided

    def more(self, new: Sequence[Trial], done: Sequence[Trial], unknown: int) -> None:
        """What a search asks for as its trials end is the sweep's too."""
        self._asked |= {trial.id for trial in (*new, *done)}

    def started(self, trial: Trial) -> None:
        """It has left nothing yet."""

    def point(self, trial_id: str, point: CurvePoint) -> None:
        """It has left nothing yet."""

    def distance(self, record: DistanceRecord) -> None:
        """It is no network."""

    def finished(self, record: RunRecord, traceback: str = "") -> None:
        if record.status == "done" and self._folder is not None:
            self._ended.append(record)
            self._done[record.trial_id] = record
            self._enter(record, parts.file_of(self._folder, record.trial_id))
        key = _key(record)
        still_open = self._open.get(key, set())
        still_open.discard(record.trial_id)
        if not still_open:
            self._decided(key)

    def settle(self, models: Models, again: Callable[..., str], tell: Callable[[str], None]) -> None:
        """Keep what has won and remove what was beaten; what cannot be done, and what is missing, is told.

        `again` gives the command of this sweep with more words. What the tracker does not take stays in the folder for
        the next run.
        """
        if self._folder is None:
            return
        self._early.shutdown()
        for line in self._told:
            tell(line)
        for record in self._ended:  # another machine's file may come to be seen late
            self._enter(record, parts.file_of(self._folder, record.trial_id))
        try:
            kept = self._settle(models, tell)
        except UnreachableError as error:
            tell(f"networks wait in {self._folder}: {error}; this keeps them: {again()}")
            return
        for record in self._missing(kept):
            tell(
                f"no network of {record_name(record)}, the best with {record.backbone} on val: it was trained before"
                f" networks were kept, or on a machine that has {self._folder} to itself;"
                f" {again('--again', record.trial_id)}"
            )

    def _keep_early(self, models: Models, key: Key, left: Iterable[Standing], reached: float) -> None:
        """Keep what has won of one dataset and backbone, unless a trial that `reached` more on val left nothing yet."""
        try:
            winners = [one for one in self._contest(models, left)[1] if one.key == key]
            if winners and (winners[0].record.val_accuracy or 0.0) < reached:
                return
            for one in winners:
                told: list[str] = []
                if one.part and self._keep(models, one.record, one.part, told.append):
                    self._told += told
        except Exception:  # `settle` does it again, in a thread that may fail
            return

    def _settle(self, models: Models, tell: Callable[[str], None]) -> list[Standing]:
        """What is kept now; what could not be stays in the folder."""
        name = self._sweep.name
        held, winners = self._contest(models, self._left.values())
        stuck = [one.part.path for one in winners if one.part and not self._keep(models, one.record, one.part, tell)]
        for one in winners:
            if one.held:
                models.share(name, one.held)
        won = {one.record.trial_id for one in winners}
        for one in held:
            if one.record.trial_id in won:
                continue
            if self._is_stale(one.record) and name in one.keepers:
                tell(f"the network of {record_name(one.record)}, {one.record.backbone}, leaves: {_STALE}")
            for line in models.leave(name, one):
                tell(line)
        assert self._folder is not None
        parts.clear(self._folder, but=stuck)
        return winners

    def _contest(self, models: Models, left: Iterable[Standing]) -> tuple[list[Held], list[Standing]]:
        """What is held in the tracker's store, and what wins of that and of what was left."""
        held = models.kept(self._sweep.name)
        entries = {one.record.trial_id: one for one in (*left, *map(Standing.of, held))}
        return held, self._winners(entries.values())

    def _keep(self, models: Models, record: RunRecord, part: Part, tell: Callable[[str], None]) -> bool:
        """Put the whole network of a trial into the tracker's store; False, and a line, where that is impossible."""
        # Here, not above: only a driver that has something to keep needs torch.
        from fttune.classifier.network import Classifier, complete

        look = Preprocessing.of(record, part.mean, part.std)
        card = Card(classes=part.classes, preprocessing=look, val_loss=part.val_loss, record=record)
        with TemporaryDirectory(prefix="fttune-") as folder:
            file = Path(folder) / FILE
            try:
                with writing(file.parent):
                    complete(part, card, self._sweep.data.weights.get(record.backbone), file)
                network = Classifier.load(file)[0]
            except FttuneError as error:
                tell(f"the network of {record_name(record)} is not kept: {error}")
                return False
            for line in models.put(self._sweep.name, record.trial_id, file, part.val_loss, _served(network, card)):
                tell(line)
        known_by = f"fttune predict {record.trial_id} IMAGES"
        tell(f"kept the network of {record_name(record)}, {record.backbone}, val {record.val_accuracy:.3f}: {known_by}")
        return True

    def _enter(self, record: RunRecord, path: Path) -> None:
        """Take what a trial left into the contest, and remove what it beats, or it where it is beaten."""
        try:
            part = Part.read(path)
        except FttuneError:  # not there, or not a whole one: then there is nothing to keep
            return
        if record.role:  # what tried a setting, on other images perhaps, is no network to keep
            part.path.unlink(missing_ok=True)
            return
        entry = Standing(record=record, val_loss=part.val_loss, part=part)
        self._left[record.trial_id] = entry
        if self._sweep.train.keep == "all":
            return
        for beaten in sorted(self._left_of(entry.key), key=lambda one: one.rank)[1:]:
            del self._left[beaten.record.trial_id]
            parts.file_of(path.parent, beaten.record.trial_id).unlink(missing_ok=True)

    def _left_of(self, key: Key) -> list[Standing]:
        return [one for one in self._left.values() if one.key == key]

    def _winners(self, entries: Iterable[Standing]) -> list[Standing]:
        ranked = self._current(sorted(entries, key=lambda one: one.rank))
        if self._sweep.train.keep == "all":
            return ranked
        best: dict[Key, Standing] = {}
        for one in ranked:
            best.setdefault(one.key, one)
        return list(best.values())

    def _current(self, entries: Sequence[Standing]) -> list[Standing]:
        """Without the networks of images that a dataset had before, where there is one of those that it has now."""
        renewed = {one.key[:2] for one in entries if not self._is_stale(one.record)}
        return [one for one in entries if not (self._is_stale(one.record) and one.key[:2] in renewed)]

    def _is_stale(self, record: RunRecord) -> bool:
        """Whether the sweep asks for other images under the name of these."""
        asked = {digest for name, digest in self._images if name == record.dataset}
        return bool(asked) and record.data_digest not in asked

    def _missing(self, kept: Iterable[Standing]) -> list[RunRecord]:
        """The best trial of each dataset and backbone of this run where what is kept did worse on val."""
        keys = {_key(record) for record in self._ended}
        reached = {one.key: one.record.val_accuracy or 0.0 for one in reversed([*kept])}
        best: dict[Key, RunRecord] = {}
        for record in self._done.values():
            key = _key(record)
            if record.trial_id in self._asked and key in keys and not record.role:
                best[key] = max(best.get(key, record), record, key=lambda one: one.val_accuracy or 0.0)
        return [record for key, record in best.items() if (record.val_accuracy or 0.0) > reached.get(key, -1.0)]


def _key(record: RunRecord) -> Key:
    return record.dataset, record.backbone, record.data_digest


def expected(sweep: Sweep, trials: Sequence[Trial]) -> tuple[int, int]:
    """How many networks a sweep will keep at most, and the bytes that they take in the tracker's store.

    `trials` are those that are asked for before anything has run. A network takes what its backbone's weights file
    takes, twice; one without a file counts as nothing.
    """
    if sweep.train.keep == "none":
        return 0, 0
    found = [(trial.cell.dataset, trial.cell.backbone) for trial in trials if trial.seed >= 0]
    # What is tried is not kept; of each cell that is searched its choice and the sweep's own setting are repeated.
    repeats = len(sweep.grid.seeds) * min(2, sweep.search.settings)
    for cell in dict.fromkeys(trial.cell for trial in trials if trial.seed < 0):
        found += [(cell.dataset, cell.backbone)] * repeats
    kept = found if sweep.train.keep == "all" else sorted(set(found))
    sizes = {name: _bytes(name, sweep.data.weights) for _, name in set(kept)}
    return len(kept), _COPIES * sum(sizes[name] for _, name in kept)


def _bytes(backbone: str, weights: Mapping[str, Path]) -> int:
    try:
        return catalog.weights_bytes(backbone, weights.get(backbone))
    except WeightsError:
        return 0


def _served(module: object, card: Card) -> Served:
    record = card.record
    shown = ("trial_id", "dataset", "backbone", "spec", "val_accuracy", "test_accuracy")
    return Served(
        module=module,
        side=card.preprocessing.image_size,
        classes=len(card.classes),
        step=record.best_step or 0,
        metadata={**card.told(), "classes": list(card.classes), "images": card.preprocessing.words},
        tags={name: str(getattr(record, name)) for name in shown},
    )
