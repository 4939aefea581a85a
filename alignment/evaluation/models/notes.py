"""What a reader must know to trust the tables: what each number is, what was left out, and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.evaluation.models.cells import Cell
from alignment.evaluation.models.diversity import EMBEDDING, NLI
from alignment.evaluation.models.outcome import Evaluation
from alignment.evaluation.text import visible
from alignment.models.embeddings import MOST_TOKENS
from alignment.rollouts.sample_file import Sampling


def kl_heading(sampling: Sampling, reference: str | None) -> str:
    """What the mean log-ratio of the sampled answers is, by how they were sampled."""
    unbiased = sampling.temperature > 0 and sampling.top_p == 1
    return f"{'KL' if unbiased else 'log-ratio'} to\n{visible(reference)} (nats)"


def notes_of(found: Evaluation, sampling: Sampling) -> list[str]:
    """One line each."""
    metrics = {cell.metric for cell in found.cells}
    lines = [note for one in found.models for note in one.notes]
    lines.append(
        f"{len(found.asked):,} prompts. In brackets the 95 % interval over prompts: bootstrap, or Wilson's for shares"
        " that are counted."
    )
    lines += _tests(found.cells, found.baseline)
    lines += _marks(found.cells, found.baseline)
    lines += _duels(found)
    if metrics & {"kl", "entropy"}:
        lines += _likelihood(sampling, metrics)
    if any(metric.endswith("per input") for metric in metrics):
        lines.append(
            "Diversity: over the prompts that all models answered, with as many answers of each; across inputs with a"
            " jackknife interval. It falls with length alone, so compare models of like length."
        )
    lines += _readers(found.settings, metrics)
    if any(one.of.stored for one in found.models):
        lines.append("Of stored answers there are no tokens and no likelihood: these cells are empty.")
    for name, why in found.failures.items():
        lines.append(
            f"{name} FAILED, and what it has not said counts as no verdict: {why}. The same command asks for the rest."
        )
    return lines


def _readers(settings: Mapping[str, Any], metrics: set[str]) -> list[str]:
    lines = []
    if f"{EMBEDDING}, per input" in metrics:
        lines.append(
            f"Embedding distance: 1 - the mean cosine of mean-pooled hidden states of {settings['embedder']}, of the"
            f" first {MOST_TOKENS} tokens. Comparable under one such model alone."
        )
    if f"{NLI}, per input" in metrics:
        lines.append(
            f"NLI: by {settings['nli']}, over all ordered pairs of the answers to a prompt: 1 where one contradicts the"
            " other, -1 where it follows from it, times that label's probability; higher is more diverse."
        )
    return lines


def _tests(cells: list[Cell], baseline: str) -> list[str]:
    tests = sum(cell.p == cell.p for cell in cells if cell.section != "answers")
    if not tests:
        return []
    return [
        f"p: two-sided, by flipping signs prompt by prompt, against {baseline}; Holm: corrected for the number of"
        f" comparisons by scores and judges, {tests}."
    ]


def _marks(cells: list[Cell], baseline: str) -> list[str]:
    """What the stars in the tables of answers, likelihood and diversity are."""
    tests = sum(cell.p == cell.p for cell in cells if cell.section == "answers")
    if not tests:
        return []
    return [
        f"*: not {baseline}'s number, p < 0.05 by the same prompts in both (signs flipped; across inputs: jackknife),"
        f" corrected by Holm for the {tests} comparisons of answers, likelihood and diversity. Differences and their"
        " intervals are in eval.csv."
    ]


def _duels(found: Evaluation) -> list[str]:
    if not found.duels:
        return []
    lines = ["Win rate: ties count as a half; what has no verdict is left out."]
    both = [name for name, own in found.duels.items() if any(duel.both_orders for duel in own)]
    once = [name for name in found.duels if name not in both]
    if both:
        lines[0] += f" {', '.join(both)}: asked in both orders; orders that disagree are a tie."
    if once:
        lines[0] += f" {', '.join(once)}: compares scores, to which an order cannot matter."
    if any(not each.bounded for own in found.standings.values() for each in own):
        lines.append("No bound: a model that won, or lost, every comparison is ranked, but its rating has no size.")
    controlled = [cell for cell in found.cells if cell.metric == "length-controlled"]
    if controlled:
        hard = any(cell.counts["difficulty from"] for cell in controlled)
        terms = "quality, length" + (" and instruction difficulty (from the other models)" if hard else "")
        lines.append(f"Length-controlled: the logistic model of AlpacaEval 2, at equal lengths; terms: {terms}.")
    return lines


def _likelihood(sampling: Sampling, metrics: set[str]) -> list[str]:
    kl = "kl" in metrics
    mean = "the mean of log p - log p_ref of the sampled answers, ± its standard error over prompts"
    if sampling.temperature == 0:
        said = "Entropy: the mean surprise of the likeliest tokens, which is no entropy."
        return [said + (f" Log-ratio: {mean}, at temperature 1; greedy answers estimate no KL." if kl else "")]
    if sampling.top_p < 1:
        said = f"Drawn with top_p={sampling.top_p:g} and scored under all tokens: entropy is the mean surprise of these"
        return [said + (f"; log-ratio: {mean}, which is no KL." if kl else ".")]
    what = "" if sampling.temperature == 1 else f" Both at the sampling temperature {sampling.temperature:g}."
    said = "Entropy: the mean of -log p of the drawn tokens."
    return [(f"KL: {mean}, unbiased for the sequence KL up to max_new_tokens. " if kl else "") + said + what]
