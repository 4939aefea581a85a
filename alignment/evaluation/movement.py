"""The rows on how far the answers moved from the reference model's: length, fluency and KL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.evaluation.row import Row, section
from alignment.evaluation.text import decimal, number, plus_minus

# A fall of the answers' mean log-prob per token under the reference (nats) beyond which they stop being good English.
FLUENCY_LIMIT = 0.5
# What holds the answers closer to the reference, by method. Any other method has no setting of its own for it.
_HOLDS = {
    **dict.fromkeys(("dpo", "kto", "online_dpo"), "a lower training.learning_rate or a higher loss.beta"),
    **dict.fromkeys(
        ("p3o", "pit", "policy_gradient", "ppo"), "a lower training.learning_rate or a higher loss.kl_coef"
    ),
    "nash_md": "a lower training.learning_rate or a higher loss.tau",
    "best_of_n": "a lower rollout.completions",
}


def length(summary: Mapping[str, Any]) -> Row | None:
    found = section(summary, "length")
    before, after = number(found.get("before")), number(found.get("after"))
    if before is None or after is None:
        return None
    reading = ""
    if before > 0:
        change = after / before - 1
        direction = "longer" if change > 0 else "shorter"
        same = "The answers kept their length."
        reading = same if abs(change) < 0.005 else f"The answers are {100 * abs(change):.0f} % {direction}."
    return Row(
        "length",
        "answer length (tokens)",
        decimal(before, 1),
        decimal(after, 1),
        decimal(after - before, 1, sign=True),
        "",
        reading,
    )


def fluency(summary: Mapping[str, Any]) -> Row | None:
    found = section(summary, "fluency")
    before, after = number(found.get("before")), number(found.get("after"))
    if before is None or after is None:
        return None
    change = after - before
    reading, tone = _fluency_reading(change, str(summary.get("method")))
    return Row(
        "fluency",
        "fluency (nats per token)",
        decimal(before),
        decimal(after),
        decimal(change, sign=True),
        "",
        reading,
        tone,
    )


def _fluency_reading(change: float, method: str) -> tuple[str, str]:
    what = "The answers' mean log-prob per token under the reference model"
    if change < -FLUENCY_LIMIT:
        return (
            f"{what} fell by {-change:.2f} nats, more than {FLUENCY_LIMIT}: answers drifted from good English. "
            f"Read the samples; {_HOLDS.get(method, 'a lower training.learning_rate')} holds the model closer.",
            "bad",
        )
    if change > FLUENCY_LIMIT:
        return (
            f"{what} rose by {change:.2f} nats: they became more predictable. That can be plain writing or repetition; "
            "read the samples.",
            "plain",
        )
    moved = f"{'fell' if change < 0 else 'rose'} by {abs(change):.2f} nats" if abs(change) >= 0.005 else "did not move"
    return f"{what} {moved} (a fall of up to {FLUENCY_LIMIT} is allowed): they read about as before.", "good"


def kl(summary: Mapping[str, Any]) -> Row | None:
    found = section(summary, "kl")
    if number(found.get("bound")) is not None:
        reading = (
            "The best of n is at most so far from the samples that it is picked from, log n - (n - 1) / n over one "
            "answer: a bound, not measured."
        )
        return Row("kl", "KL to reference (nats), bound", "", kl_cell(found), "", "", reading)
    if number(found.get("mean")) is None:
        return None
    reading = (
        "How far the answers moved from the reference model, summed over one answer, ± its standard error. "
        "Zero is no movement."
    )
    return Row("kl", "KL to reference (nats)", "", kl_cell(found), "", "", reading)


def kl_cell(found: Mapping[str, Any]) -> str:
    """The `kl` entry of a summary: `3.10 ± 0.20`, or `≤ 1.84` where only a bound is known."""
    if number(found.get("bound")) is not None:
        return f"≤ {decimal(found['bound'])}"
    return plus_minus(found.get("mean"), found.get("se"))
