"""What is said of a chosen threshold, in sentences, and where there is nothing to choose."""

from __future__ import annotations

from rsd_local.bench.tables import points
from rsd_local.calibration.choice import Choice, Comparison, Wish
from rsd_local.calibration.points import Sweep
from rsd_local.errors import RSDError

Interval = tuple[float, float]


def fewer(ratio: float | None) -> str:
    """A cost over the target's, said in its own direction: 0.5 as ``2.00× fewer``, 2 as ``2.00× more``; a dash for None."""
    if ratio is None:
        return "–"
    times = ratio if ratio > 1 else 1 / ratio
    if f"{times:.2f}" == "1.00":
        return "the same"
    return f"{times:.2f}× {'more' if ratio > 1 else 'fewer'}"


def fewer_flops(ratio: float, interval: Interval | None) -> str:
    """The same of FLOPs in a sentence, with the interval of the ratio; one that holds 1 has both directions."""
    said = fewer(ratio)
    words = "as many FLOPs as the target alone" if said == "the same" else f"{said} FLOPs than the target alone"
    ends = [fewer(end) for end in sorted(interval or (), reverse=ratio <= 1)]
    if len(set(ends)) < 2:
        return words
    direction = said.split()[-1]
    if all(end.endswith(direction) for end in ends):
        ends = [end.split()[0] for end in ends]
    return f"{words} ({ends[0]} to {ends[1]})"


def chosen_line(sweep: Sweep, choice: Choice) -> str:
    """The threshold, its accuracy and its FLOPs, from the questions that did not choose it."""
    low, high = choice.held_out.interval
    verb = "right" if sweep.labelled else "as the target"
    ratio = choice.held_out.ratio(choice.target, "full")
    line = f"δ = {choice.threshold:g}: {choice.held_out.accuracy:.1%} {verb} ({low:.1%} to {high:.1%})"
    return line if ratio is None else f"{line}, {fewer_flops(ratio, choice.held_out.ratio_interval(choice.target, 'full'))}"


def difference_line(comparison: Comparison) -> str:
    """RSD against the target on the same questions."""
    low, high = comparison.interval
    pair = f"{points(comparison.difference)} points ({points(low)} to {points(high)})"
    return f"Against the target: {pair} on the same {comparison.questions} questions."


def no_worse_lines(comparison: Comparison, share_reporting: float = 1.0) -> list[str]:
    """Whether RSD is no worse than the target by more than the margin; where the questions are too few, how many would show it.

    Args:
        comparison: on the questions that report.
        share_reporting: how many of all questions they are.
    """
    if comparison.bound > 0:
        return [f"Better than the target by at least {100 * comparison.bound:.1f} points (one-sided 95 %)."]
    margin = 100 * comparison.margin
    claim = f"no worse than the target by more than {margin:g} point{'s' * (margin != 1)}"
    worst = f"{-100 * comparison.bound:.1f} points worse"
    if comparison.no_worse:
        return [f"{claim.capitalize()}: at most {worst} (one-sided 95 %)."]
    needed = comparison.needed
    more = f"about {round(needed / share_reporting):,} questions would show it" if needed else "more like these would not show it"
    return [f"Not shown: {claim}.", f"It may be {worst} (one-sided 95 %); {more}."]


def undecided(sweep: Sweep, wish: Wish, threshold: float, *, bands: bool) -> RSDError | None:
    """Why no threshold can be chosen, None where one can.

    Args:
        sweep: what each threshold gives.
        wish: what to choose for.
        threshold: that the trio has.
        bands: whether bands of a cascade were chosen: they are worth keeping where the threshold does not matter.
    """
    stays = f"the threshold stays {threshold:g}"
    values, questions = sweep.seen.values, sweep.target.questions
    if not values and not bands:
        why, hint = _nothing_compared(sweep)
        return RSDError(f"{why}: {stays}", hint=hint)
    if len(set(values)) == 1 and not bands:
        many = f"the rewards of all {len(values)} steps are" if len(values) > 1 else "the reward of the only step is"
        return RSDError(f"{many} {values[0]:g}, and no threshold tells steps apart: {stays}", hint="try other questions or another reward")
    known = sweep.labelled and wish.kind == "no-worse-than-target"
    if known and not sweep.target.right:
        return RSDError(
            f"the target answered none of the {questions} questions right, and every threshold is no worse than that: {stays}",
            hint="see what it answers: rsd solve --strategy target",
        )
    if not any(point.right for point in sweep.points):
        return RSDError(
            f"no threshold answers one of the {questions} questions {'right' if sweep.labelled else 'as the target does'}: {stays}",
            hint="see what comes out: rsd solve",
        )
    return None


def _nothing_compared(sweep: Sweep) -> tuple[str, str]:
    """Why no reward was compared with a threshold, and what to do."""
    if sweep.seen.failed:
        return f"all {sweep.seen.failed} rewards failed, and no step of the draft was accepted", "see why: rsd solve"
    if sweep.seen.unchecked:
        found = f"the verifier found nothing to check in all {sweep.seen.unchecked} steps"
        return found, "try questions of its kind, or another reward"
    return "no step's reward is compared with the threshold on these questions", "see which reward decides: rsd solve"


def warnings(sweep: Sweep, choice: Choice) -> list[str]:
    """What whoever takes over the threshold should know."""
    made = []
    if sweep.errors:
        made.append(f"{sweep.errors} of {sweep.target.questions} questions ended in an error and count as wrong: {sweep.cause}")
    kind, share = choice.wish.kind, choice.held_out.target_share
    if not choice.met:
        missed = "reaches the target" if kind == "no-worse-than-target" else f"keeps the target's share at {choice.wish.share:.1%}"
        made.append(f"no threshold {missed} on these questions; this one comes closest")
    elif kind == "at-most-target-share" and share > choice.wish.share:
        made.append(f"on questions that did not choose, the target writes {share:.1%} of the steps, more than {choice.wish.share:.1%}")
    if not sweep.seen.values:
        made.append(f"no step's reward is compared with the threshold on these questions, so it stays {choice.threshold:g}")
    elif share == 1.0:
        made.append("the target writes every step at this threshold: alone it costs less")
    elif share == 0.0:
        made.append("every step of the draft is accepted at this threshold: the answers are the draft's")
    return made
