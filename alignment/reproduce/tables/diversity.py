"""RLHF, generalisation and diversity: SFT, best-of-n and RLHF, in and out of distribution.

Small scale: alignment/reproduce/farm.py with one annotator's labels. In distribution are everyday prompts, out of it
questions about short texts (the built-in set `planted`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.data.example import Message
from alignment.data.readers import load_examples
from alignment.evaluation.agreement import Estimate
from alignment.evaluation.metrics.diversity import across_inputs, distinct_n, ead, per_input, self_bleu
from alignment.feedback.rules import PlainWords
from alignment.reproduce import farm
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import NOT_MEASURED, difference, mean_of, over, over_halves
from alignment.reproduce.farm import CLEAN
from alignment.reproduce.lab import Lab, Sampled
from alignment.reproduce.plots import bars, canvas
from alignment.reproduce.report import Cell, Report, Section
from alignment.reproduce.rows import Row
from alignment.reproduce.sweep import everyday, matching, prompts_of
from alignment.reproduce.table import Job, Settings, Table

SFT, BEST_OF, RLHF, HELD = "SFT", "best-of-n", "RLHF", "RLHF, larger KL penalty"
MODELS = (SFT, BEST_OF, RLHF, HELD)
SETS, HALVES = 4, 40  # across inputs: of so many answers to each, and so many random halves of the inputs
KL_COEF = {RLHF: 0.05, HELD: 0.5}  # the first as published
WHERE = ("in", "out")
MEASURES: dict[str, Callable[[Sequence[str]], float]] = {
    "EAD": ead,
    "distinct-2": lambda texts: distinct_n(texts, 2),
    "1 − self-BLEU": lambda texts: 1.0 - self_bleu(texts),
}
ACROSS = ("EAD", "distinct-2")  # the measures over answers to different inputs
SCALES = {
    "smoke": {**farm.SETTINGS["smoke"], "inputs": 8, "answers": 4, "best_of": 2, "models": [SFT, BEST_OF, RLHF]},
    "small": {**farm.SETTINGS["small"], "inputs": 48, "answers": 8, "best_of": 8, "models": list(MODELS)},
}


def jobs(settings: Settings, seeds: Sequence[int]) -> list[Job]:
    """Every model in and out of distribution, seed by seed."""
    return [
        {"model": model, "where": where, "seed": seed}
        for seed in seeds
        for model in settings["models"]
        for where in WHERE
    ]


def prompts_where(where: str, inputs: int) -> list[list[Message]]:
    """The held-out prompts, in or out of the distribution that was trained on."""
    if where == "in":
        return prompts_of(everyday("test", inputs))
    return prompts_of(list(load_examples("planted", split="test").examples)[:inputs])


def make(lab: Lab, settings: Settings, job: Job) -> Mapping[str, Any]:
    """K answers of one model to each of N prompts, and the reward of each."""
    from alignment.reproduce.asking import scored

    seed, model, k = job["seed"], job["model"], settings["answers"]
    prompts = prompts_where(job["where"], settings["inputs"])
    drawn = Sampled(settings["tokens"], k, seed=seed)
    if model == SFT:
        texts = lab.answers("tiny", prompts, drawn).texts
    elif model == BEST_OF:
        n = settings["best_of"]
        many = lab.answers("tiny", prompts, Sampled(settings["tokens"], k * n, temperature=0.7, seed=seed)).texts
        groups = [[row[at * n : (at + 1) * n] for at in range(k)] for row in many]
        flat = [group for row in groups for group in row]
        asked = [prompt for prompt in prompts for _ in range(k)]
        places = farm.best_places(farm.scores_of(farm.reward_model(lab, settings, CLEAN, seed), asked, flat), n)
        best = iter(group[at] for group, at in zip(flat, places, strict=True))
        texts = [[next(best) for _ in range(k)] for _ in prompts]
    else:
        run = farm.ppo(lab, settings, CLEAN, seed, KL_COEF[model])
        texts = lab.answers(run, prompts, drawn).texts
    rewards = [round(float(np.mean(row)), 4) for row in scored(PlainWords(), prompts, texts)]
    each = {name: [round(value, 6) for value in per_input(texts, of)] for name, of in MEASURES.items()}
    return {"texts": texts, "reward": rewards, "per_input": each}


# -- the table ---------------------------------------------------------------------------------------------------------


def report(settings: Settings, rows: list[Row]) -> Report:
    """Claims; reward, diversity of an input's answers, and of answers to all inputs."""
    return Report(
        findings=findings(settings, rows),
        sections=[reward_section(settings, rows), diversity_section(settings, rows)],
        notes=[
            "The paper has figures and no table of numbers: what is published here are directions.",
            "Small stand-ins: `tiny` for LLaMA-7B on TL;DR and AlpacaFarm; the rule behind the labels for the reward; "
            f"{settings['inputs']} inputs with {settings['answers']} answers each (the paper: 500 with 16), for every "
            "model alike, since the measures depend on how many there are. Best-of-n is drawn at temperature 0.7, as "
            "published.",
            "That RLHF lowers the diversity across inputs is quoted from memory.",
            "Across inputs, the figures are of random halves of the inputs, averaged over the answers; their intervals "
            "come from those halves.",
            "Sentence embeddings and NLI need models and are made at paper scale (align eval has the measures).",
        ],
    )


def table_of(rows: Sequence[Row], model: str, where: str, key: str, measure: str = "") -> np.ndarray:
    """(S, P): reward, or a measure of each input's answers."""
    found = matching(rows, {"model": model, "where": where})
    return np.array([row[key][measure] if measure else row[key] for row in found], dtype=float)


def across(rows: Sequence[Row], model: str, where: str, measure: str, less: str | None = None) -> Estimate:
    """A measure over the answers to different inputs, or how much higher it is than that of another model."""
    sides = [matching(rows, {"model": name, "where": where}) for name in (model, *([less] if less else []))]
    if not all(sides):
        return NOT_MEASURED

    def statistic(chosen: np.ndarray) -> np.ndarray:
        found = [
            [np.mean(across_inputs([row["texts"][at][:SETS] for at in chosen], MEASURES[measure])) for row in side]
            for side in sides
        ]
        return np.array(found[0]) - (np.array(found[1]) if less else 0.0)

    return over_halves(statistic, len(sides[0][0]["texts"]), resamples=HALVES)


def findings(settings: Settings, rows: list[Row]) -> list[Finding]:
    found = []
    for where, name in zip(WHERE, ("in distribution", "out of distribution"), strict=True):
        sft = table_of(rows, SFT, where, "reward")
        for model in (RLHF, BEST_OF):
            claim = Claim(f"{model} has a higher reward than SFT {name}", "higher", "difference of rewards", above=0.0)
            found.append(Finding(claim, difference(table_of(rows, model, where, "reward"), sft), over(sft)))
    sft = table_of(rows, SFT, "in", "per_input", "EAD")
    for model in (RLHF, BEST_OF):
        claim = Claim(
            f"{model} is less diverse for an input than SFT",
            "much lower" if model == RLHF else "lower",
            "difference of EAD",
            below=0.0,
            digits=3,
        )
        found.append(Finding(claim, difference(table_of(rows, model, "in", "per_input", "EAD"), sft), over(sft)))
    claim = Claim("RLHF is less diverse across inputs than SFT", "lower", "difference of EAD", below=0.0, digits=3)
    found.append(Finding(claim, across(rows, RLHF, "in", "EAD", SFT), f"halves of {settings['inputs']} inputs"))
    claim = Claim(
        "a larger KL penalty lowers the diversity", "lower, against intuition", "difference of EAD", below=0.0, digits=3
    )
    held, free = (table_of(rows, name, "in", "per_input", "EAD") for name in (HELD, RLHF))
    found.append(Finding(claim, difference(held, free), over(free)))
    return found


def reward_section(settings: Settings, rows: list[Row]) -> Section:
    lines: list[list[Cell]] = [
        [model, *(mean_of(table_of(rows, model, where, "reward")) for where in WHERE)] for model in settings["models"]
    ]
    return Section("Reward (plain words, 0 to 10)", ["model", "in distribution", "out of distribution"], lines)


def diversity_section(settings: Settings, rows: list[Row]) -> Section:
    heads = [
        "model",
        "prompts",
        *(f"{name}, per input" for name in MEASURES),
        *(f"{name}, across inputs" for name in ACROSS),
    ]
    lines: list[list[Cell]] = []
    for where in WHERE:
        for model in settings["models"]:
            own = [mean_of(table_of(rows, model, where, "per_input", name)) for name in MEASURES]
            lines.append([model, where, *own, *(across(rows, model, where, name) for name in ACROSS)])
    return Section("Diversity: higher is more diverse", heads, lines, digits=3)


def draw(settings: Settings, rows: list[Row]) -> Any:
    """Per-input diversity over reward, in and out of distribution."""
    figure, axes = canvas(9.5, 3.8, columns=2, sharey=True)
    for plot, where in zip(axes[0], WHERE, strict=True):
        for number, model in enumerate(settings["models"]):
            x, y = (
                mean_of(table_of(rows, model, where, "reward")),
                mean_of(table_of(rows, model, where, "per_input", "EAD")),
            )
            plot.errorbar(x.value, y.value, xerr=bars([x]), yerr=bars([y]), fmt="o", color=f"C{number}", label=model)
        plot.set(title=f"{where} of distribution" if where == "out" else "in distribution", xlabel="reward")
        plot.grid(alpha=0.3)
    axes[0, 0].set_ylabel("EAD of an input's answers")
    axes[0, 0].legend(frameon=False)
    return figure


TABLE = Table(
    name="diversity",
    title="SFT, best-of-n and RLHF: reward in and out of distribution, diversity per input and across inputs",
    paper="RLHF, generalisation and diversity (2310.06452): the figures of reward and diversity",
    settings=SCALES,
    minutes={"smoke": 0.7, "small": 25},
    seeds={"smoke": (0,), "small": (0, 1, 2)},
    jobs=jobs,
    make=make,
    report=report,
    draw=draw,
)
