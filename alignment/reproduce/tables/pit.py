"""PIT: how much it improves answers, its curriculum's ablation, Elo over five iterations, and the temperature.

Small scale: `tiny` on answers whose quality is known (alignment/reproduce/opposites.py), all stages trained from
scratch. Self-Refine is asked of the policy that PIT improves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment.evaluation.metrics.ranking import Standing, bradley_terry
from alignment.reproduce import opposites
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import NOT_MEASURED, difference, mean_of, over
from alignment.reproduce.lab import Lab
from alignment.reproduce.plots import bars, canvas
from alignment.reproduce.report import Cell, Report, Section
from alignment.reproduce.rows import Row
from alignment.reproduce.sweep import matching
from alignment.reproduce.table import Job, Settings, Table

PIT, SELF_REFINE, IMITATION = "PIT", "Self-Refine", "imitation alone"
WAYS = {PIT: "improver", SELF_REFINE: "self_refine"}
ASKED_AT = 0.4  # temperature of the iterations, the paper's best for PIT
# Settings that are of opposites.Training.
TRAINING = ("pairs", "held_out", "steps_sft", "steps_scorer", "steps_policy", "steps")
SCALES = {
    "smoke": {
        "pairs": 120,
        "held_out": 16,
        "steps_sft": 6,
        "steps_scorer": 4,
        "steps_policy": 2,
        "steps": 2,
        "variants": [IMITATION, PIT],
        "rounds": 2,
        "temperatures": [0.4],
    },
    "small": {
        **{key: getattr(opposites.Training, key) for key in TRAINING},
        "variants": list(opposites.VARIANTS),
        "rounds": 5,
        "temperatures": [0.2, 0.4, 0.6, 0.8, 1.0],
    },
}


def jobs(settings: Settings, seeds: Sequence[int]) -> list[Job]:
    """The variants, then both ways over the rounds and the temperatures, seed by seed."""
    found: list[Job] = []
    for seed in seeds:
        found += [{"part": "variant", "variant": name, "seed": seed} for name in settings["variants"]]
        found += [{"part": "rounds", "way": way, "seed": seed} for way in WAYS]
        found += [
            {"part": "temperature", "way": way, "temperature": value, "seed": seed}
            for way in WAYS
            for value in settings["temperatures"]
        ]
    return found


def make(lab: Lab, settings: Settings, job: Job) -> Mapping[str, Any]:
    """Train what the job needs, and measure the quality of held-out answers before and after."""
    given = {key: settings[key] for key in TRAINING}
    place = lab.folder / "runs" / "-".join(["pit", *(f"{key}={given[key]}" for key in sorted(given)), str(job["seed"])])
    stages = opposites.Stages(place, job["seed"], opposites.Training(**given))
    prompts = [example.prompt for example in stages.held_out]
    own = opposites.answers_of(stages.policy(), prompts, 1.0)
    if job["part"] == "variant":
        improver = stages.improver(job["variant"])
        texts = [response.text for example in stages.held_out for response in example.responses]
        twice = [prompt for prompt in prompts for _ in range(2)]
        data = opposites.qualities(improver, twice, texts, ASKED_AT)
        # Both answers to a prompt as one, since they are not independent.
        of_data = [np.reshape(side, (-1, 2)).tolist() for side in data]
        return {"data": of_data, "policy": opposites.qualities(improver, prompts, own, ASKED_AT)}
    rounds = settings["rounds"] if job["part"] == "rounds" else 1
    texts_after = iterated(stages, job["way"], job.get("temperature", ASKED_AT), rounds, prompts, own)
    return {"quality": [[opposites.quality(*row) for row in zip(prompts, each, strict=True)] for each in texts_after]}


def iterated(
    stages: opposites.Stages, way: str, temperature: float, rounds: int, prompts: Sequence[Any], own: Sequence[str]
) -> list[list[str]]:
    """The answers as they were, and after each round; no rule stops the rounds, as in the paper."""
    from alignment.rollouts.improver import Improver

    model: Path = stages.improver(PIT) if way == PIT else stages.policy()
    improver = Improver(
        str(model),
        way=WAYS[way],
        rule="last",
        rounds=rounds,
        temperature=temperature,
        seed=stages.seed,
        max_new_tokens=opposites.TOKENS,
        batch_size=128,
        dtype="float32",
    )
    found = improver(list(prompts), list(own))
    return [[each.after(number) for each in found] for number in range(rounds + 1)]


# -- the table ---------------------------------------------------------------------------------------------------------


def report(settings: Settings, rows: list[Row]) -> Report:
    """Claims; the deltas of every variant, the rounds with their ratings, the temperatures."""
    return Report(
        findings=[*of_the_variants(settings, rows), *of_the_rounds(rows), *of_the_temperature(settings, rows)],
        sections=[variants_section(settings, rows), rounds_section(rows), temperature_section(settings, rows)],
        notes=[
            "Small stand-ins: `tiny` on opposites of words for PaLM 2 Bison on HH, TL;DR and a synthetic set; a known "
            "quality for GPT-4, a DeBERTa reward model and people. A delta is the share that got better less the share "
            "that got worse.",
            "Self-Refine asks a model of 2.4 million weights, which was trained on nothing else, to criticise itself: "
            "that PIT beats it here says little about larger models.",
            "Everything about the paper's optimisation is unpublished; steps and rates are ours. “No curriculum” and "
            "the difference of two rewards are ours, too.",
        ],
    )


def delta(rows: Sequence[Row], variant: str, kind: str) -> np.ndarray:
    """(S, P): 1 where the variant made an answer better, -1 where worse; mean over the answers of a prompt."""
    found = []
    for row in matching(rows, {"part": "variant", "variant": variant}):
        old, new = (np.array(side, dtype=float).reshape(len(row["policy"][0]), -1) for side in row[kind])
        found.append(np.sign(np.round(new - old, 9)).mean(1))
    return np.array(found)


def of_rounds(rows: Sequence[Row], way: str) -> np.ndarray:
    """(S, rounds + 1, P): quality of the policy's answers after each round."""
    return np.array([row["quality"] for row in matching(rows, {"part": "rounds", "way": way})], dtype=float)


def at_temperature(rows: Sequence[Row], way: str, temperature: float) -> np.ndarray:
    """(S, P): win, loss or tie of one round at a temperature."""
    found = matching(rows, {"part": "temperature", "way": way, "temperature": temperature})
    return np.array([np.sign(np.subtract(row["quality"][1], row["quality"][0])) for row in found], dtype=float)


def of_the_variants(settings: Settings, rows: list[Row]) -> list[Finding]:
    own = {name: delta(rows, name, "policy") for name in opposites.VARIANTS}
    share = "win − lose, share of answers"
    found = []
    for kind, name in (("data", "the data's answers"), ("policy", "the policy's answers")):
        claim = Claim(f"PIT improves {name}", "+0.07 to +0.34", share, above=0.0)
        values = delta(rows, PIT, kind)
        found.append(Finding(claim, mean_of(values), over(values)))
    rivals = [
        ("first stage alone", "PIT needs the second stage", "without it below Self-Refine"),
        ("second stage alone", "PIT needs the first stage", "without it below Self-Refine"),
        ("no curriculum", "the order of the stages matters", "not measured there"),
        ("difference of rewards", "the gap model is better than a difference of rewards", "said, without figures"),
        (IMITATION, "reinforcement learning adds to imitation", "not in the table"),
    ]
    for rival, text, published in rivals:
        if rival in settings["variants"]:
            claim = Claim(text, published, f"PIT less {rival}, {share}", above=0.0)
            found.append(Finding(claim, difference(own[PIT], own[rival]), over(own[PIT])))
    return found


def of_the_rounds(rows: list[Row]) -> list[Finding]:
    pit, rival = of_rounds(rows, PIT), of_rounds(rows, SELF_REFINE)
    claim = Claim("PIT is above Self-Refine after one iteration", "HH, people: +0.235", "win − lose", above=0.0)
    found = [Finding(claim, mean_of(np.sign(pit[:, 1] - rival[:, 1])), over(pit[:, 1]))]
    least = min((mean_of(np.sign(pit[:, n] - rival[:, n])) for n in range(1, pit.shape[1])), key=lambda e: e.value)
    claim = Claim(
        "PIT is above Self-Refine after every iteration", "Elo, five iterations", "the lowest win − lose", above=0.0
    )
    return [*found, Finding(claim, least, over(pit[:, 1]))]


def of_the_temperature(settings: Settings, rows: list[Row]) -> list[Finding]:
    temperatures = settings["temperatures"]
    claim = Claim("PIT is better at 0.4 than at 1", "best at 0.4 to 0.6", "difference of win − lose", above=0.0)
    ours, where = NOT_MEASURED, ""
    if {0.4, 1.0} <= set(temperatures):
        low, high = at_temperature(rows, PIT, 0.4), at_temperature(rows, PIT, 1.0)
        ours, where = difference(low, high), over(low)
    best = {way: best_temperature(settings, rows, way)[1] for way in WAYS}
    ahead = Claim("PIT is ahead at the best temperature of each", "+0.092", "difference of win − lose", above=0.0)
    return [Finding(claim, ours, where), Finding(ahead, difference(best[PIT], best[SELF_REFINE]), over(best[PIT]))]


def best_temperature(settings: Settings, rows: list[Row], way: str) -> tuple[float, np.ndarray]:
    """The best on every second prompt, and its values (S, P/2) on the others."""
    found = {value: at_temperature(rows, way, value) for value in settings["temperatures"]}
    best = max(found, key=lambda value: float(found[value][:, 0::2].mean()))
    return best, found[best][:, 1::2]


def variants_section(settings: Settings, rows: list[Row]) -> Section:
    heads = ["variant", "published: delta", "ours, the data's answers", "ours, the policy's answers"]
    lines: list[list[Cell]] = [
        [
            name,
            "+0.07 to +0.34" if name == PIT else "",
            *(mean_of(delta(rows, name, kind)) for kind in ("data", "policy")),
        ]
        for name in settings["variants"]
    ]
    return Section("Improvement: share better less share worse", heads, lines)


def ratings(rows: list[Row]) -> list[Standing]:
    """Bradley–Terry over all pairs of (way, round), in Elo points; seeds are further prompts."""
    quality = {"as it was": of_rounds(rows, PIT)[:, 0].ravel()}
    for way in WAYS:
        path = of_rounds(rows, way)
        quality |= {f"{way}, {n}": path[:, n].ravel() for n in range(1, path.shape[1])}
    names = list(quality)
    duels = {
        (a, b): (0.5 + 0.5 * np.sign(quality[a] - quality[b])).tolist()
        for at, a in enumerate(names)
        for b in names[at + 1 :]
    }
    return bradley_terry(duels)


def rounds_section(rows: list[Row]) -> Section:
    standing = {each.model: each for each in ratings(rows)}
    heads = ["way", "iteration", "Elo", "lowest", "highest", "quality"]
    lines: list[list[Cell]] = []
    for way in WAYS:
        path = of_rounds(rows, way)
        for number in range(path.shape[1]):
            each = standing[f"{way}, {number}" if number else "as it was"]
            lines.append([way, number, each.rating, each.low, each.high, mean_of(path[:, number])])
    note = (
        "Elo of Bradley–Terry over all pairs, 1000 the mean, with the ends of its 95 % interval. Published: PIT above "
        "Self-Refine after every iteration, gains not monotonic."
    )
    return Section("Five iterations", heads, lines, note=note)


def temperature_section(settings: Settings, rows: list[Row]) -> Section:
    lines: list[list[Cell]] = [
        [f"{value:g}", *(mean_of(at_temperature(rows, way, value)) for way in WAYS)]
        for value in settings["temperatures"]
    ]
    best = {way: f"{best_temperature(settings, rows, way)[0]:g}" for way in WAYS}
    note = f"Best here: PIT {best[PIT]}, Self-Refine {best[SELF_REFINE]}. Published: 0.4 to 0.6, and 0.6 to 0.8."
    return Section(
        "Temperature: share better less share worse, one iteration", ["temperature", *WAYS], lines, note=note
    )


def draw(settings: Settings, rows: list[Row]) -> Any:
    """Elo over the iterations, and the temperatures."""
    figure, axes = canvas(10, 3.8, columns=2)
    elo, heat = axes[0]
    standing = {each.model: each for each in ratings(rows)}
    for number, way in enumerate(WAYS):
        path = of_rounds(rows, way)
        found = [standing[f"{way}, {n}" if n else "as it was"] for n in range(path.shape[1])]
        middle = [each.rating for each in found]
        ends = [[each.rating - each.low for each in found], [each.high - each.rating for each in found]]
        elo.errorbar(range(len(found)), middle, ends, fmt="-o", ms=4, capsize=2, label=way, color=f"C{number}")
        shares = [mean_of(at_temperature(rows, way, value)) for value in settings["temperatures"]]
        middle = [each.value for each in shares]
        heat.errorbar(settings["temperatures"], middle, bars(shares), fmt="-o", ms=4, capsize=2, label=way)
    elo.set(xlabel="iteration", ylabel="Elo")
    heat.set(xlabel="temperature", ylabel="share better less share worse")
    for plot in (elo, heat):
        plot.grid(alpha=0.3)
        plot.legend(frameon=False)
    return figure


TABLE = Table(
    name="pit",
    title="PIT: improvement deltas, curriculum ablation, Elo over five iterations, temperature sweep",
    paper="Implicit self-improvement (2310.00898): tables 1 to 3 and the temperature sweep",
    settings=SCALES,
    minutes={"smoke": 0.8, "small": 45},
    seeds={"smoke": (0,), "small": (0, 1, 2)},
    jobs=jobs,
    make=make,
    report=report,
    draw=draw,
)
