"""From rollouts to a read-out: which features, which penalty, and how good it is on questions that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsd_local.calibration.fit import FOLDS, Fit, Matrix, fit, log_loss
from rsd_local.calibration.rollouts import STORED, RolloutRow, StateRow, unpack
from rsd_local.config import RoleConfig, require
from rsd_local.evaluation.stats import area_under_curve
from rsd_local.hashes import file_sha256
from rsd_local.rewards.features import PARTS, course_of, width_of
from rsd_local.rewards.heads import ReadOut
from rsd_local.runtime import Floats

CHOICES: dict[str, tuple[tuple[str, ...], ...]] = {
    "draft": (
        ("last",),
        ("surprise", "course"),
        ("last", "surprise", "course"),
        ("lasts", "surprise", "course"),
        ("last", "lasts", "surprise", "course"),
    ),
    "target": (("last",),),
}
"""Features that are tried, by the role whose states they are."""
_BINS = 5
_RESAMPLES = 1_000
_FEWEST = 10  # questions


@dataclass(frozen=True, slots=True)
class Steps:
    """All steps of rollouts.

    Attributes:
        features: (n, d), all ``PARTS`` of the draft, or the target's last state.
        labels: (n,) in [0, 1].
        groups: (n,), the question of each.
        confidences: (n,), the draft's.
        width: n_embd.
    """

    features: Matrix
    labels: Matrix
    groups: npt.NDArray[np.int64]
    confidences: Matrix
    width: int

    def part(self, rows: npt.NDArray[np.bool_]) -> Steps:
        """Some of the rows."""
        return Steps(self.features[rows], self.labels[rows], self.groups[rows], self.confidences[rows], self.width)

    def columns(self, parts: tuple[str, ...]) -> Matrix:
        """The features of some parts."""
        before = {part: width_of(PARTS[:place], self.width) for place, part in enumerate(PARTS)}
        cuts = [slice(before[part], before[part] + width_of((part,), self.width)) for part in parts]
        return np.concatenate([self.features[:, cut] for cut in cuts], axis=1)


@dataclass(frozen=True, slots=True)
class Quality:
    """How well rewards of steps tell right solutions from wrong ones.

    Attributes:
        questions, steps: how many.
        good: the mean label.
        auc: area under the ROC curve, a step counted as right where its label is above one half, and its 95 %
            interval over resampled questions.
        loss: mean log loss, in nats.
        confidence_auc: of the draft's own confidence on the same steps.
        reliability: for bins of equal size, steps, mean reward and mean label.
    """

    questions: int
    steps: int
    good: float
    auc: float
    auc_interval: tuple[float, float]
    loss: float
    confidence_auc: float
    reliability: tuple[tuple[int, float, float], ...]


def gather(rows: Sequence[RolloutRow], width: int, states: Sequence[StateRow] | None = None) -> Steps:
    """The steps of rollouts that have a label, with the draft's features, or with the target's states where they are given.

    Raises:
        ConfigError: there is nothing to learn from.
    """
    read = {(row["id"], row["sample"]): row["features"] for row in states if row["features"]} if states is not None else None
    ordered = sorted(rows, key=lambda row: (row["id"], row["sample"]))  # lines come in the order in which questions ended
    kept = [row for row in ordered if row["steps"] and (read is None or (row["id"], row["sample"]) in read)]
    require(bool(kept), "no rollout has a step", "give more questions")
    names = {name: place for place, name in enumerate(dict.fromkeys(row.get("problem", row["id"]) for row in kept))}
    if read is None:
        features = [_with_those_so_far(unpack(row["features"], len(row["steps"])), width) for row in kept]
    else:
        features = [unpack(read[row["id"], row["sample"]], len(row["steps"])) for row in kept]
    labels = np.array([label for row in kept for label in row["labels"]], np.float64)  # None becomes NaN
    known = ~np.isnan(labels)
    require(bool(known.any()), "no step has a label", "give more questions, or another --label")
    groups = np.array([names[row.get("problem", row["id"])] for row in kept for _ in row["steps"]])
    confidences = np.array([value for row in kept for value in row["confidences"]])
    return Steps(np.concatenate(features).astype(np.float64), labels, groups, confidences, width).part(known)


def _with_those_so_far(stored: Floats, width: int) -> Floats:
    """All ``PARTS`` (n, d) of one solution's steps, from what is stored of them."""
    require(stored.shape[1] == width_of(STORED, width), "the rollouts have other features than this version's", "make them anew")
    last, surprises = stored[:, :width], stored[:, width:]
    lasts = np.cumsum(last, axis=0) / np.arange(1, len(stored) + 1)[:, None]
    return np.concatenate([last, lasts, surprises, course_of(surprises)], axis=1)


def require_enough(questions: int, held_out: float) -> int:
    """How many of some questions are held out.

    Args:
        questions: how many there are.
        held_out: the share of them that are only measured.

    Raises:
        ConfigError: too few would be left to learn from.
    """
    require(questions >= _FEWEST, f"{questions} questions are too few to learn from", f"give {_FEWEST} or more")
    measured = max(2, round(held_out * questions))
    left = questions - measured
    require(left >= FOLDS, f"{left} questions are left to learn from, fewer than {FOLDS}", "give more, or a smaller --held-out")
    return measured


def train(steps: Steps, role: Literal["draft", "target"], model: RoleConfig, held_out: float, seed: int) -> tuple[ReadOut, Quality]:
    """Fits a read-out on some questions and measures it on the others.

    Args:
        steps: of all of them.
        role: whose states they are.
        model: whose file, and adapter, the head will belong to.
        held_out: the share of questions that are only measured.
        seed: of that choice.

    Raises:
        ConfigError: too few questions, or all steps are alike.
    """
    names = np.random.default_rng(seed).permutation(np.unique(steps.groups))
    measured = np.isin(steps.groups, names[: require_enough(len(names), held_out)])
    learnt, left_out = steps.part(~measured), steps.part(measured)
    good = float(learnt.labels.mean())
    require(
        0 < good < 1,
        f"every step is labelled {'right' if good else 'wrong'}, so there is nothing to tell apart",
        f"give more questions, or {'harder' if good else 'easier'} ones",
    )
    tried = {parts: fit(learnt.columns(parts), learnt.labels, learnt.groups, seed) for parts in CHOICES[role]}
    parts = min(tried, key=lambda key: tried[key].loss)
    made = tried[parts]
    quality = measure(made.probabilities(left_out.columns(parts)), left_out)
    about: dict[str, Any] = {
        "questions": len(np.unique(learnt.groups)),
        "steps": len(learnt.labels),
        "good": round(good, 4),
        "penalty": made.penalty,
        "components": made.components,
        "cross_validated_loss": {"+".join(key): round(one.loss, 4) for key, one in tried.items()},
        "cross_validated_auc": round(area_under_curve(made.left_out.tolist(), (learnt.labels > 0.5).tolist()), 4),
        "held_out": asdict(quality),
    }
    return as_head(made, role, parts, model, about), quality


def as_head(made: Fit, role: Literal["draft", "target"], parts: tuple[str, ...], model: RoleConfig, about: dict[str, Any]) -> ReadOut:
    """A fitted head as it is stored."""
    weight, mean, scale = (array.astype(np.float32) for array in (made.weight, made.mean, made.scale))
    adapter = (file_sha256(model.lora), model.lora_scale) if model.lora else ()
    return ReadOut(role, parts, weight, mean, scale, made.bias, model.path.name, file_sha256(model.path), about, *adapter)


def measure(rewards: Matrix, steps: Steps, seed: int = 0) -> Quality:
    """The quality of rewards (n,) of steps."""
    right = steps.labels > 0.5
    order = np.argsort(rewards, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if len(part)]
    return Quality(
        questions=len(np.unique(steps.groups)),
        steps=len(rewards),
        good=float(steps.labels.mean()),
        auc=area_under_curve(rewards.tolist(), right.tolist()),
        auc_interval=auc_interval(rewards, right, steps.groups, seed),
        loss=log_loss(rewards, steps.labels),
        confidence_auc=area_under_curve(steps.confidences.tolist(), right.tolist()),
        reliability=tuple((len(part), float(rewards[part].mean()), float(steps.labels[part].mean())) for part in bins),
    )


def auc_interval(rewards: Matrix, right: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the area over resampled questions."""
    chance = np.random.default_rng(seed)
    rows = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    areas = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([rows[place] for place in chance.integers(len(rows), size=len(rows))])
        areas.append(area_under_curve(rewards[drawn].tolist(), right[drawn].tolist()))
    low, high = np.nanpercentile(areas, [2.5, 97.5]) if not np.isnan(areas).all() else (np.nan, np.nan)
    return float(low), float(high)
