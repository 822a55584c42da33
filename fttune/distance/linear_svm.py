"""A linear SVM that tells source from target by their features."""

import numpy as np

from fttune.errors import UsageError


def accuracy(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int) -> float:
    """Share of held-out images [N, D] told apart; features standardised on the training images, C = 1."""
    try:
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC
    except ModuleNotFoundError:
        raise UsageError("the svm distance needs scikit-learn, which is not installed here") from None
    machine = make_pipeline(StandardScaler(), LinearSVC(max_iter=20_000, random_state=seed))
    machine.fit(*_labelled(train))
    return float(machine.score(*_labelled(test)))


def _labelled(sides: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(sides), np.repeat([0, 1], [len(side) for side in sides])
