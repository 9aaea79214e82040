"""A logistic regression, its penalty and its room chosen by cross-validation over whole questions; numpy only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
COMPONENTS = (64, 256)  # directions of the largest spread that a weight may point in
FOLDS = 5
_ROUNDS = 25


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted head: the probability is the logistic function of ``((x − mean) / scale) · weight + bias``.

    Attributes:
        weight, mean, scale: (d,).
        bias: of the logistic function's argument.
        penalty: λ of λ/2·‖weight‖², beside the summed log loss.
        components: directions of the largest spread that the weight is made of.
        left_out: (n,), the probability of each row that it was fitted on, by a head fitted without that row's fold.
        loss: mean log loss of these, in nats.
    """

    weight: Matrix
    mean: Matrix
    scale: Matrix
    bias: float
    penalty: float
    components: int
    left_out: Matrix
    loss: float

    def probabilities(self, features: Matrix) -> Matrix:
        """Of features (n, d)."""
        return _logistic((features - self.mean) / self.scale @ self.weight + self.bias)


def fit(features: Matrix, labels: Matrix, groups: npt.NDArray[np.int64], seed: int = 0) -> Fit:
    """Fits a head; penalty and components are those with the least log loss on groups that were left out.

    Args:
        features: (n, d).
        labels: (n,) in [0, 1].
        groups: (n,), the question of each row; a question is never on both sides of a cut.
        seed: of the cuts.
    """
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    reached = np.zeros((len(_counts(features)) * len(PENALTIES), len(labels)))
    for fold in range(FOLDS):
        left_out = np.isin(groups, names[fold::FOLDS])
        for place, head in enumerate(_heads(features[~left_out], labels[~left_out])):
            reached[place, left_out] = head.probabilities(features[left_out])
    losses = [log_loss(row, labels) for row in reached]
    best = int(np.argmin(losses))
    return replace(_heads(features, labels)[best], left_out=reached[best], loss=losses[best])


def log_loss(probabilities: Matrix, labels: Matrix) -> float:
    """The mean of −y·ln p − (1−y)·ln(1−p), in nats."""
    kept = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return float(-(labels * np.log(kept) + (1 - labels) * np.log(1 - kept)).mean())


def _heads(features: Matrix, labels: Matrix) -> list[Fit]:
    """A head for each number of components and each penalty, always in the same order."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-6 * (np.abs(mean) + 1e-12), scale, 1.0)
    standardized = (features - mean) / scale
    _, directions = np.linalg.eigh(standardized.T @ standardized)
    heads: list[Fit] = []
    for count in _counts(features):
        chosen = directions[:, -count:].T
        scores = np.column_stack([standardized @ chosen.T, np.ones(len(features))])
        weight = np.zeros(scores.shape[1])
        for penalty in sorted(PENALTIES, reverse=True):  # each the start of the next
            weight = _newton(scores, labels, penalty, weight)
            heads.append(Fit(chosen.T @ weight[:-1], mean, scale, float(weight[-1]), penalty, count, np.zeros(0), np.nan))
    return heads


def _counts(features: Matrix) -> list[int]:
    return sorted({min(count, features.shape[1]) for count in COMPONENTS})


def _newton(scores: Matrix, labels: Matrix, penalty: float, weight: Matrix) -> Matrix:
    """Minimizes summed log loss plus λ/2·‖w‖², the last weight (the bias) not penalized, by damped Newton steps."""
    ridge = np.full(scores.shape[1], penalty)
    ridge[-1] = 1e-6

    def cost(at: Matrix) -> float:
        reached = scores @ at
        return float((np.logaddexp(0, reached) - labels * reached).sum() + 0.5 * (ridge * at * at).sum())

    now = cost(weight)
    for _ in range(_ROUNDS):
        likely = _logistic(scores @ weight)
        slope = scores.T @ (likely - labels) + ridge * weight
        curve = (scores * (likely * (1 - likely))[:, None]).T @ scores + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        length = 1.0
        while length > 1e-4 and cost(weight - length * step) > now:
            length /= 2
        weight = weight - length * step
        before, now = now, cost(weight)
        if before - now < 1e-7 * max(1.0, before):
            break
    return weight


def _logistic(values: Matrix) -> Matrix:
    made: Matrix = 1.0 / (1.0 + np.exp(-np.clip(values, -500, 500)))
    return made
