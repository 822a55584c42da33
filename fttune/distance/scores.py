"""Transferability scores: what a network's features tell of the labels of a target, before anything is trained.

They need labels and no source. Larger is more transferable, so they are no distances. Letters: N images, D features,
C classes.
"""

import numpy as np

from fttune.errors import UsageError

_ROUNDS, _SETTLED = 100, 1e-6  # of the fixed point at most; relative change of alpha / beta at which it is reached
_LEAST = 1e-12  # below which a sum of squares is taken as zero


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Log maximum evidence for an image and class (You et al. 2021, algorithm 1), of features [N, D] and labels [N].

    Each class's one-hot labels are taken as linear in the features, with a Gaussian prior of precision alpha on the
    weights and Gaussian noise of precision beta; both are set where the evidence is largest. The mean over classes.
    """
    left, sizes, _ = np.linalg.svd(features, full_matrices=False)
    spectrum = np.square(sizes)
    onehot = (labels[:, None] == np.unique(labels)).astype(np.float64)
    inside = np.square(left.T @ onehot)  # [min(N, D), C]
    outside = np.maximum(np.square(onehot).sum(0) - inside.sum(0), 0)  # what no feature explains
    shape = features.shape
    return float(np.mean([_evidence(spectrum, inside[:, c], outside[c], shape) for c in range(onehot.shape[1])]))


def _evidence(spectrum: np.ndarray, inside: np.ndarray, outside: float, shape: tuple[int, ...]) -> float:
    """The largest log evidence of one class, divided by N; `inside` are squared labels along the features' axes."""
    images, width = shape
    alpha = beta = 1.0
    for _ in range(_ROUNDS):
        before = alpha / beta
        alpha, beta = _step(spectrum, inside, outside, images, before)
        if abs(alpha / beta - before) <= _SETTLED * before:
            break
    ratio = alpha / beta
    residual = (inside / np.square(1 + spectrum / ratio)).sum() + outside
    weights = (spectrum * inside / np.square(ratio + spectrum)).sum()
    log_det = np.log(alpha + beta * spectrum).sum() + (width - len(spectrum)) * np.log(alpha)
    evidence = width * np.log(alpha) + images * np.log(beta / (2 * np.pi)) - log_det - beta * residual - alpha * weights
    return evidence / 2 / images


def _step(spectrum: np.ndarray, inside: np.ndarray, outside: float, images: int, ratio: float) -> tuple[float, float]:
    """Alpha and beta from their ratio: gamma / |m|^2 and (N - gamma) / |y - F m|^2, with m the mean of the weights."""
    gamma = (spectrum / (spectrum + ratio)).sum()
    weights = (spectrum * inside / np.square(ratio + spectrum)).sum()
    residual = (inside / np.square(1 + spectrum / ratio)).sum() + outside
    return float(gamma / max(weights, _LEAST)), float((images - gamma) / max(residual, _LEAST))


def hscore(features: np.ndarray, labels: np.ndarray) -> float:
    """`tr(cov(f)^-1 cov(E[f | y]))` (Bao et al. 2019) of features [N, D] and labels [N]: from 0 to C - 1.

    With more features than images the covariance has no inverse. So it is shrunk as Ledoit and Wolf (2004) have it, and
    that between classes by the same factor, as Ibrahim et al. (2022) do. UsageError without scikit-learn.
    """
    try:
        from sklearn.covariance import ledoit_wolf_shrinkage
    except ModuleNotFoundError:
        raise UsageError("the H-score needs scikit-learn, which is not installed here") from None
    centred = features - features.mean(0)
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    # Class means lie in the space that the features span, where the covariance is diagonal in the right singular basis.
    outer, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    spread = np.square(sizes) / len(labels)
    shrunk = (1 - shrinkage) * spread + shrinkage * spread.sum() / features.shape[1]
    means = np.stack([(outer[labels == label] * sizes).mean(0) for label in np.unique(labels)])
    between = np.unique(labels, return_counts=True)[1] / len(labels) @ np.square(means)
    shares = np.divide(between, shrunk, out=np.zeros_like(between), where=spread > _LEAST * spread.max(initial=0))
    return (1 - shrinkage) * float(shares.sum())
