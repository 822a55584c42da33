"""The list of settings that every cell of a sweep is given: points of a scrambled Sobol sequence, drawn by Optuna."""

import math
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from fttune.config import Sweep
from fttune.errors import ConfigError
from fttune.space import OF_TUNED, Choices, Domain, whole
from fttune.trial import HParams, seed_from

_PATIENCE = 10_000  # points, in which a space of few settings has shown all of them


def draw_settings(sweep: Sweep, *, tuned: bool = True) -> list[HParams]:
    """The sweep's own setting first; alone with `sampler: fixed`.

    The list depends on `search` and `train` alone, so each cell is given the same settings, and a longer list starts
    with the shorter one. Where no copied layer is tuned, what means nothing there keeps its value; there are as many
    settings. ConfigError where the space has not so many.
    """
    return [sweep.train.hparams(**values) for values in draw_values(sweep, tuned=tuned)]


def draw_values(sweep: Sweep, *, tuned: bool) -> list[dict[str, Any]]:
    """What of each setting is searched, by name; of the sweep's own, that is drawn from nowhere, nothing."""
    search = sweep.search
    if search.sampler == "fixed":
        return [{}]
    if fault := search.check_cell(tuned=tuned):
        raise ConfigError(f"search.settings: {fault}")
    seen, values = {sweep.train.hparams()}, [{}]
    for point in islice(_points(search.space.domains), _PATIENCE + 2 * search.settings):
        if len(values) == search.settings:
            return values
        kept = {name: value for name, value in point.items() if tuned or name not in OF_TUNED}
        if (setting := sweep.train.hparams(**kept)) not in seen:
            seen.add(setting)
            values.append(kept)
    raise ConfigError(f"search.settings: {search.settings} are asked for, but the space has shown {len(values)} in all")


def _points(domains: Mapping[str, Domain]) -> Iterator[dict[str, Any]]:
    """Without end; log-uniform in each range, whole numbers and choices each as likely as their share of it."""
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.exceptions import ExperimentalWarning

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spans = {name: _span(name, domain) for name, domain in domains.items()}
    space = {name: FloatDistribution(*span, log=span[0] > 0) for name, span in spans.items()}
    seed = seed_from("search", sorted(space)) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.QMCSampler(scramble=True, seed=seed))
    # A finished trial with the same ranges tells the sampler its space; its own values are of no consequence to it.
    study.add_trial(
        optuna.trial.create_trial(params={n: d.low for n, d in space.items()}, distributions=dict(space), value=0.0)
    )
    while True:
        params = study.ask(dict(space)).params
        yield {name: _value(name, domains[name], params[name]) for name in params}


def _span(name: str, domain: Domain) -> tuple[float, float]:
    if isinstance(domain, Choices):
        return 0.0, float(len(domain.choices))
    # Whole numbers are cut off, so each has the room up to the next one.
    return (domain.low, domain.high + 1) if whole(name, 1.5) == 2 else (domain.low, domain.high)


def _value(name: str, domain: Domain, drawn: float) -> Any:
    if isinstance(domain, Choices):
        return whole(name, domain.choices[min(int(drawn), len(domain.choices) - 1)])
    return min(math.floor(drawn), int(domain.high)) if whole(name, 1.5) == 2 else drawn
