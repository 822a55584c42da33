"""The list of settings that every cell of a sweep is given. The only file that imports optuna."""

import warnings

from fttune.config import Sweep
from fttune.trial import HParams, seed_from


def draw_settings(sweep: Sweep) -> list[HParams]:
    """One setting for `sampler: fixed`; for `shared` a list drawn once, the sweep's own setting first.

    The list depends on the search part of the sweep file alone, so each cell is given the same settings, and a longer
    list starts with the shorter one.
    """
    if sweep.search.sampler == "fixed":
        return [sweep.train.hparams()]
    return [sweep.train.hparams(**values) for values in _draw(sweep)]


def _draw(sweep: Sweep) -> list[dict[str, float]]:
    """Points of a scrambled Sobol sequence, log-uniform in each range."""
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.exceptions import ExperimentalWarning

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: FloatDistribution(low, high, log=True) for name, (low, high) in sorted(sweep.search.space.items())}
    seed = seed_from("search", sorted(space)) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.QMCSampler(scramble=True, seed=seed))
    default = {name: getattr(sweep.train, name) for name in space}
    # A finished trial with the same ranges tells the sampler its space; its own values are of no consequence to it.
    study.add_trial(
        optuna.trial.create_trial(params={n: d.low for n, d in space.items()}, distributions=dict(space), value=0.0)
    )
    points = [study.ask(dict(space)).params for _ in range(sweep.search.settings - 1)]
    return [default, *points]
