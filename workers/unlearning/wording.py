"""Say in words what the checks of a verdict mean, and what they do not show."""

import math
from collections.abc import Sequence

from lethe.policy import Bounds, Guarantee
from workers.unlearning.attacks import Attack, records_needed, visible_deviation


def margin(bounds: Bounds) -> tuple[float, float]:
    """Return the AUCs between which an attack is as good as a coin."""
    return 0.5 - bounds.leak_margin, 0.5 + bounds.leak_margin


def explain(attack: Attack, interval: tuple[float, float], bounds: Bounds) -> str:
    """Say what an attack's interval means beside the margin."""
    low, high = margin(bounds)
    if not math.isfinite(attack.auc):
        return "a value is not finite, or there are no records to attack"
    if interval[0] > high:
        return "leak: the attack tells forgotten records from never-seen ones"
    if interval[1] < low:
        return (
            "over-forgetting: forgotten records stand out as less known than never-seen ones, "
            "which gives them away as well"
        )
    if interval[0] >= low and interval[1] <= high:
        return "the whole interval lies within the margin"
    return f"too little power: {_missing_power(attack, bounds)}"


def _missing_power(attack: Attack, bounds: Bounds) -> str:
    room = bounds.leak_margin - abs(attack.auc - 0.5)
    if room <= 0:
        towards = "a leak" if attack.auc > 0.5 else "over-forgetting"
        return (
            f"the estimate points to {towards}, and {attack.forgotten} forgotten records are too "
            "few to be certain of it"
        )
    needed = records_needed(attack.unseen, room, bounds.confidence)
    if needed is None:
        return f"with {attack.unseen} never-seen records no number of forgotten ones would do"
    # Beside what a larger m would bring, the error may exceed the one under the null.
    needed = max(needed, attack.forgotten + 1)
    return (
        f"for the interval to fit the margin at this AUC, at least {needed} forgotten records "
        f"would be needed beside {attack.unseen} never-seen ones; there are {attack.forgotten}"
    )


def not_shown(
    attacks: Sequence[Attack], guarantee: Guarantee, confidence: float
) -> tuple[str, ...]:
    """Say what the checks leave open, whatever their outcome."""
    m, n = attacks[0].forgotten, attacks[0].unseen
    sentences = [
        "That the service itself was honest: whoever runs both method and checks can pass both "
        "without erasing anything (arXiv 2408.00929).",
        "That no stronger attack succeeds: these compare forgotten with never-seen records on "
        "average, without reference models, and may miss single records that still stand out.",
        "That forgotten and never-seen records are alike but for the training; where they are "
        "not, the attacks measure that difference too.",
    ]
    if guarantee == "approximate":
        sentences.insert(
            0,
            "Erasure: an approximate method edits weights that were trained on the forgotten "
            "records, and what they left behind may be out of sight of these checks.",
        )
    if m and n:
        sentences.append(
            f"An AUC that differs from one half by less than "
            f"{visible_deviation(m, n, confidence):.3f}: {m} forgotten and {n} never-seen records "
            f"cannot show it at a confidence of {confidence:g}."
        )
        sentences.append(
            f"True-positive rates at false-positive rates below {1 / n:.2g}: {n} never-seen "
            "records do not resolve them."
        )
    if all(attack.name != "entropy" for attack in attacks):
        sentences.append("What an attack on entropies would find: it was not run.")
    return tuple(sentences)
