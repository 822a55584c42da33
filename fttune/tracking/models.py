"""The kept networks of an MLflow experiment: a safetensors file at the trial's run, and a model that MLflow serves."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from fttune.errors import UsageError
from fttune.record import RunRecord
from fttune.secrets import masked
from fttune.tracking import fields
from fttune.tracking.client import artifacts, connect, search, tag_run
from fttune.tracking.served import Served, name, save
from fttune.tracking.uri import asking, database_file, reason

if TYPE_CHECKING:
    from fttune.tracking.client import MlflowClient, Run
    from fttune.tracking.runs import Tracker

FOLDER, FILE = "network", "network.safetensors"  # among the artifacts of a run
MODEL = "model"  # the logged model's name: `runs:/RUN_ID/model`
_PAGE = 1000  # runs of one search
_NAMED = 3  # runs named in an error


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A trial's run, with what is known of its network."""

    run_id: str
    record: RunRecord
    sweeps: tuple[str, ...]  # that asked for the trial
    keepers: tuple[str, ...]  # sweeps that keep its network
    val_loss: float | None  # at the best step; None: no network is kept
    model_id: str  # of the logged model; empty where there is none

    @classmethod
    def of(cls, run: "Run") -> Self:
        tags = run.data.tags
        told = json.loads(tags.get(fields.NETWORK) or "{}")
        return cls(
            run_id=run.info.run_id,
            record=fields.unpack(RunRecord, tags),
            sweeps=_named(tags, fields.sweep_tag("")),
            keepers=_named(tags, fields.keeps_tag("")),
            val_loss=told.get("val_loss"),
            model_id=told.get("model_id", ""),
        )


class Models:
    """Every method may raise UnreachableError; every change may be repeated, and a second time changes nothing."""

    def __init__(self, tracker: "Tracker") -> None:
        self._uri, self._experiment = tracker.uri, tracker.experiment

    def kept(self, sweep: str) -> list[Held]:
        """The trials of a sweep whose network is there, whichever sweep keeps it."""
        return [
            Held.of(run) for run in self._search(f"{_is(fields.sweep_tag(sweep))} and {_like(fields.NETWORK, '{')}")
        ]

    def find(self, key: str) -> Held:
        """The finished trial whose MLflow run id or trial id begins with `key`; UsageError unless it is one."""
        place = f"experiment {self._experiment} of {masked(self._uri)}"
        if not key or not set(key) <= set("0123456789abcdef"):
            raise UsageError(
                f"a run is named by its MLflow run id or its trial id (or their first digits), not '{key}'"
            )
        found = {run.info.run_id: run for run in (*self._search(_like(fields.TRIAL_ID, key)), *self._by_run(key))}
        done = [Held.of(run) for run in found.values() if run.data.tags.get(fields.STATUS) == "done"]
        if len(done) > 1:
            named = ", ".join(f"{held.record.trial_id} ({fields.record_name(held.record)})" for held in done[:_NAMED])
            raise UsageError(f"{len(done)} runs begin with '{key}': {named}{', ...' if len(done) > _NAMED else ''}")
        if done:
            return done[0]
        what = "finished run" if found else "run"
        raise UsageError(f"no {what} '{key}' in {place}; `fttune runs` lists those that are there")

    def put(self, sweep: str, trial_id: str, file: Path, val_loss: float, served: Served) -> list[str]:
        """Keep the network of a done trial for a sweep; a line for what could not be done."""
        with asking(self._uri):
            run = next(self._search(f"tags.`{fields.TRIAL_ID}` = '{trial_id}' and tags.`{fields.STATUS}` = 'done'"))
            self._clear(run)
            self._client.log_artifact(run.info.run_id, str(file), FOLDER)
            model_id, notes = self._log(run, served)
            told = {"val_loss": val_loss, "model_id": model_id, "bytes": file.stat().st_size}
            tag_run(self._client, run.info.run_id, fields.keeps_tag(sweep), "true")
            tag_run(self._client, run.info.run_id, fields.NETWORK, json.dumps(told))
        return notes

    def share(self, sweep: str, held: Held) -> None:
        """Let a sweep keep a network that is there."""
        if sweep not in held.keepers:
            with asking(self._uri):
                tag_run(self._client, held.run_id, fields.keeps_tag(sweep), "true")

    def leave(self, sweep: str, held: Held) -> list[str]:
        """A sweep keeps a network no longer; what no sweep keeps is removed. A line for what could not be removed."""
        with asking(self._uri):
            if set(held.keepers) <= {sweep}:
                run = self._client.get_run(held.run_id)
                try:
                    self._clear(run)
                except Exception as error:  # a store that lets nobody remove anything
                    return [f"the beaten network of {run.info.run_name} ({held.run_id}) stays: {reason(error)}"]
                self._client.delete_tag(held.run_id, fields.NETWORK)
            if sweep in held.keepers:
                self._client.delete_tag(held.run_id, fields.keeps_tag(sweep))
        return []

    def fetch(self, held: Held, folder: Path) -> Path:
        """The file of a network, brought into `folder`."""
        with asking(self._uri):
            # MLflow's client would ask for it wherever its own process looks for runs.
            location = self._client.get_run(held.run_id).info.artifact_uri or ""
            return Path(artifacts(location, self._uri).download_artifacts(f"{FOLDER}/{FILE}", str(folder)))

    def _log(self, run: "Run", served: Served) -> tuple[str, list[str]]:
        """Log what MLflow can serve; its id, or why there is none."""
        with TemporaryDirectory(prefix="fttune-") as temporary:
            folder = Path(temporary) / MODEL
            try:
                save(served, folder, run.info.run_id)
            except Exception as error:  # whatever torch makes of a network that it cannot trace
                return "", [f"the network of {run.info.run_name} has no model that MLflow serves: {reason(error)}"]
            model = self._client.create_logged_model(
                run.info.experiment_id, MODEL, run.info.run_id, params=dict(run.data.params), tags=dict(served.tags)
            )
            name(folder, model.model_id)
            self._client.log_model_artifacts(model.model_id, str(folder))
        self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(run.info.run_id, [served.output(model.model_id)])
        return model.model_id, []

    def _clear(self, run: "Run") -> None:
        """Remove a network, or what a killed process has left of one."""
        artifacts(run.info.artifact_uri or "", self._uri).delete_artifacts(FOLDER)
        where = f"source_run_id = '{run.info.run_id}' AND name = '{MODEL}'"
        for model in self._client.search_logged_models([run.info.experiment_id], where):
            artifacts(model.artifact_location, self._uri).delete_artifacts()
            self._client.delete_logged_model(model.model_id)

    def _by_run(self, key: str) -> Iterator["Run"]:
        return self._search(f"attributes.run_id LIKE '{key}%' and tags.`{fields.KIND}` = 'trial'")

    def _search(self, condition: str) -> Iterator["Run"]:
        """The runs that meet a condition; no database is made to look into."""
        file = database_file(self._uri)
        if file and not file.exists():
            return
        with asking(self._uri):
            yield from search(self._client, self._experiment, condition, _PAGE)

    @cached_property
    def _client(self) -> "MlflowClient":
        return connect(self._uri)


def _named(tags: Any, prefix: str) -> tuple[str, ...]:
    return tuple(sorted(name.removeprefix(prefix) for name in tags if name.startswith(prefix)))


def _is(tag: str) -> str:
    return f"tags.`{tag}` = 'true'"


def _like(tag: str, beginning: str) -> str:
    return f"tags.`{tag}` LIKE '{beginning}%'"
