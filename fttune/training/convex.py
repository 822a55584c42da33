"""The convex probe: logistic regression on what the frozen part makes of each image, solved to its end.

Letters: N images, K fixed views of each, D features, C classes.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from fttune.errors import FttuneError, StoppedError, UsageError
from fttune.training.inputs import FeatureInputs
from fttune.training.keeper import never
from fttune.training.loop import Best, Clock, Fit, Leg, score

# Inverse strengths of the L2 penalty, as scikit-learn counts them, for features as `scaled`; the strongest penalty
# first, which ties on val go to.
STRENGTHS = (1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3)
_ITERATIONS, _TOLERANCE = 20_000, 1e-8  # of L-BFGS at most; largest slope of the mean loss that it stops at


def solve(leg: Leg, stopped: Callable[[], bool] = never) -> Fit:
    """Solve for the classifier at each of STRENGTHS and put the best on val, chosen as a step is, into the student.

    Raises FttuneError where L-BFGS does not converge, StoppedError soon after `stopped`.
    """
    clock, best = Clock(), Best()
    regression = Regression(*training_set(leg))
    last = leg.student.leaves[-1]
    assert isinstance(last, nn.Linear)  # the contract of a backbone's last stage
    for number, strength in enumerate(STRENGTHS):
        if stopped():
            raise StoppedError("the solver was asked to stop")
        weight, bias = regression.at(strength)
        with torch.no_grad():
            last.weight.copy_(torch.from_numpy(weight))
            last.bias.copy_(torch.from_numpy(bias))
        clock.lap("train")
        best.offer(number, score(leg.student, leg.val), leg.student.trained.state_dict())
        clock.lap("eval")
    leg.student.trained.load_state_dict(best.state)
    return replace(best.fit(0, clock), best_step=0, strength=STRENGTHS[best.step])


@torch.inference_mode()
def training_set(leg: Leg) -> tuple[np.ndarray, np.ndarray]:
    """What the classifier is given of every view of every training image, float64 [K N, D], and the classes [K N]."""
    inputs = leg.train.inputs
    assert isinstance(inputs, FeatureInputs)  # the views of a probe are fixed
    leg.student.eval()
    shown: Tensor = inputs.table.take(torch.arange(len(inputs.table))).to(inputs.device)
    for layer in leg.student.leaves[:-1]:
        shown = layer(shown)
    views = len(inputs.table) // inputs.images
    return shown.double().cpu().numpy(), np.tile(leg.train.labels.cpu().numpy(), views)


class Regression:
    """Multinomial logistic regression on features [N, D] of classes [N], at one strength after another.

    It is solved on `scaled` features, so that a strength means the same on every backbone, in coordinates of the space
    that they span, which changes neither solution nor penalty; biases have no penalty. Each solution starts at the one
    before. UsageError without scikit-learn.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        try:
            from sklearn.linear_model import LogisticRegression
        except ModuleNotFoundError:
            raise UsageError("the convex probe needs scikit-learn, which is not installed here") from None
        inputs, self._mean, self._scale = scaled(features)
        outer, sizes, self._basis = np.linalg.svd(inputs, full_matrices=False)
        self._inputs, self._labels = outer * sizes, labels
        self._machine = LogisticRegression(max_iter=_ITERATIONS, tol=_TOLERANCE, warm_start=True)

    def at(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights [C, D] and biases [C] for the features as they came; FttuneError where L-BFGS does not converge."""
        from sklearn.exceptions import ConvergenceWarning

        self._machine.C = strength
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                self._machine.fit(self._inputs, self._labels)
            except ConvergenceWarning:
                raise FttuneError(
                    f"the convex probe did not converge in {_ITERATIONS:,} iterations at C = {strength:g}"
                ) from None
        weight = np.asarray(self._machine.coef_) @ self._basis / self._scale
        bias = np.asarray(self._machine.intercept_) - weight @ self._mean
        if len(weight) > 1:
            return weight, bias
        # Of two classes scikit-learn gives one margin, the second class's over the first's.
        return np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])


def scaled(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Features [N, D] about their mean [D], divided by the one number that makes their mean square norm 1."""
    mean = features.mean(0)
    centred = features - mean
    scale = math.sqrt(np.square(centred).sum(1).mean()) or 1.0
    return centred / scale, mean, scale
