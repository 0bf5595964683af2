"""Say in words what the checks of a verdict mean, and what they do not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from lethe.policy import Bounds, Guarantee
from workers.unlearning.attacks import Attack, decisive
from workers.unlearning.power import Power
from workers.unlearning.roc import quantile, records_needed

NOT_FINITE = "a value is not finite, or there are no records to attack"

Place = Literal["within", "above", "below", "across", "nowhere"]


def margin(bounds: Bounds) -> tuple[float, float]:
    """Return the AUCs between which an attack is as good as a coin."""
    return 0.5 - bounds.leak_margin, 0.5 + bounds.leak_margin


def lies(interval: tuple[float, float], low: float, high: float) -> Place:
    """Return where an interval lies beside the margin; nowhere if an end is NaN."""
    start, end = interval
    if math.isnan(start) or math.isnan(end):
        return "nowhere"
    if start > high:
        return "above"
    if end < low:
        return "below"
    return "within" if low <= start and end <= high else "across"


def explain(attack: Attack, interval: tuple[float, float], bounds: Bounds) -> str:
    """Say what an attack's interval means beside the margin."""
    match lies(interval, *margin(bounds)):
        case "nowhere":
            return NOT_FINITE
        case "above":
            return "leak: the attack tells forgotten records from never-seen ones"
        case "below":
            return (
                "over-forgetting: forgotten records stand out as less known than never-seen ones, "
                "which gives them away as well"
            )
        case "within":
            return "the whole interval lies within the margin"
        case "across":
            return f"too little power: {_missing_power(attack, bounds)}"


def natural(attack: Attack, interval: tuple[float, float], bounds: Bounds) -> str:
    """Say why a retrained model is accepted, whatever its attack shows."""
    match lies(interval, *margin(bounds)):
        case "above" | "below":
            return (
                "the forgotten records differ from never-seen ones in themselves; accepted because "
                "training never saw them"
            )
        case "across":
            why = explain(attack, interval, bounds)
            return f"{why}; accepted because training never saw them"
        case _:
            return explain(attack, interval, bounds)


def _missing_power(attack: Attack, bounds: Bounds) -> str:
    room = bounds.leak_margin - abs(attack.auc - 0.5)
    if room <= 0:
        towards = "a leak" if attack.auc > 0.5 else "over-forgetting"
        return (
            f"the estimate points to {towards}, and {attack.forgotten} forgotten records are too "
            "few to be certain of it"
        )
    needed = records_needed(attack.unseen, room / quantile(bounds.confidence))
    if needed is None:
        return f"with {attack.unseen} never-seen records no number of forgotten ones would do"
    # Beside what a larger m would bring, the error may exceed the one under the null.
    needed = max(needed, attack.forgotten + 1)
    return (
        f"for the interval to fit the margin at this AUC, at least {needed} forgotten records "
        f"would be needed beside {attack.unseen} never-seen ones; there are {attack.forgotten}"
    )


def not_shown(
    attacks: Sequence[Attack], power: Power | None, guarantee: Guarantee, bounds: Bounds
) -> tuple[str, ...]:
    """Say what the checks leave open, whatever their outcome."""
    decides = decisive(attacks)
    sentences = [
        "That the service itself was honest: whoever runs both method and checks can pass both "
        "without erasing anything (arXiv 2408.00929).",
        "That no stronger attack succeeds: these look at what the model answers to each record, "
        "and not at its weights.",
        "That forgotten and never-seen records are alike but for the training; where they are "
        "not, the attacks measure that difference too.",
        *_of_references(decides),
    ]
    if guarantee == "approximate":
        sentences.insert(
            0,
            "Erasure: an approximate method edits weights that were trained on the forgotten "
            "records, and what they left behind may be out of sight of these checks.",
        )
    if power is not None:
        sentences += [*_of_power(power, bounds), *_of_single_records(decides, bounds)]
    if all(attack.name != "entropy" for attack in attacks):
        sentences.append("What an attack on entropies would find: it was not run.")
    return tuple(sentences)


def _of_references(decides: Attack) -> list[str]:
    if decides.name != "calibrated":
        return [
            "That the forgotten records are neither easier nor harder than never-seen ones in "
            "themselves: without references their difficulty is not removed."
        ]
    sentences = [
        "That the judges forgot, too: their losses come from reference models trained on other "
        "samples, some of which may have been forgotten since. The models are gone, and these "
        "numbers stayed."
    ]
    if any(decides.left_out):
        forgotten, unseen = decides.left_out
        sentences.append(
            f"What the calibrated attack finds of {forgotten} forgotten and {unseen} never-seen "
            "records: no judge left them out, so their expected loss is unknown."
        )
    return sentences


def _of_power(power: Power, bounds: Bounds) -> list[str]:
    m, n = power.forgotten, power.unseen
    beside = f"{m} forgotten and {n} never-seen records"
    sentences = [
        f"An AUC that differs from one half by less than {power.visible_deviation:.3f}: {beside} "
        f"cannot show it at a confidence of {bounds.confidence:g}.",
        f"True-positive rates at false-positive rates below {1 / n:.2g}: {n} never-seen "
        "records do not resolve them.",
    ]
    if power.passing_deviation is not None:
        sentences.append(
            f"That the true AUC is one half: one that differs by {power.passing_deviation:.3f} "
            f"fits the margin with a probability of {power.probability:g}."
        )
    elif power.records_needed is None:
        sentences.append(
            f"Anything by this margin: {n} never-seen records are too few for a perfect result "
            f"to fit it with a probability of {power.probability:g}, beside any number of "
            "forgotten ones."
        )
    else:
        sentences.append(
            f"Much by this margin: a perfect result fits it with a probability of "
            f"{power.probability:g} only from {power.records_needed} forgotten records on; there "
            f"are {m}."
        )
    return sentences


def _of_single_records(decides: Attack, bounds: Bounds) -> list[str]:
    found = decides.individuals
    if found is None or decides.forgotten * found.resolution < 1 - bounds.confidence:
        return []
    return [
        f"That no single record stands out: among {decides.unseen} never-seen records none of "
        f"{decides.forgotten} forgotten ones could."
    ]
