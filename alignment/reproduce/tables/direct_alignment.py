"""Five direct alignment algorithms under an automatic judge: quality, length-controlled quality, relative length.

The chest X-ray study's analysis on a text task. Small scale: `tiny` answers everyday prompts; four answers to each are
scored against the data's best answer, and the best and worst are a pair. Two judges stand in for GREEN and BERTScore:
coverage (ROUGE-1 recall: what of the reference is said; more words say more) and overlap (ROUGE-1 F).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.data.example import Example
from alignment.evaluation.agreement import Estimate
from alignment.feedback.rules import words_of
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import difference, mean_of, over, ratio_of
from alignment.reproduce.lab import Answers, Lab, Sampled
from alignment.reproduce.plots import canvas
from alignment.reproduce.report import Cell, Report, Section
from alignment.reproduce.rows import Row
from alignment.reproduce.sweep import everyday, matching, pair, prompts_of
from alignment.reproduce.table import Job, Settings, Table

SFT = "SFT"
# algorithm -> recipe and loss
ALGORITHMS = {
    "DPO": ("dpo", ["loss=sigmoid", "loss.beta=0.1"]),
    "LC-DPO": ("dpo", ["loss=r_dpo", "loss.beta=0.1", "loss.length_alpha=0.05"]),
    "IPO": ("dpo", ["loss=ipo", "loss.beta=0.1"]),
    "KTO": ("kto", ["loss.beta=0.1"]),
    "ORPO": ("dpo", ["loss=orpo", "loss.beta=0.1"]),
}
JUDGES = {"coverage": "recall", "overlap": "f"}
# CheXagent, judged by GREEN: words, relative to SFT, GREEN, LC-GREEN; what was not found is None
Published = tuple[float | None, float | None, float | None, float | None]
PUBLISHED: dict[tuple[str, str], Published] = {
    (SFT, ""): (55.8, 1.00, 0.249, 0.218),
    ("DPO", "quality"): (140.2, 2.51, None, None),
    ("DPO", "length-controlled"): (68.7, 1.23, None, None),
    ("KTO", "length-controlled"): (55.9, 1.00, 0.328, 0.293),
}
KEPT = 0.15  # of the length: “hardly” longer
SAMPLES = 4  # of a prompt
SCALES = {
    "smoke": {
        "judges": ["coverage"],
        "algorithms": list(ALGORITHMS),
        "train": 48,
        "prompts": 24,
        "tokens": 32,
        "steps": [2, 4],
        "answers": 1,
    },
    "small": {
        "judges": list(JUDGES),
        "algorithms": list(ALGORITHMS),
        "train": 282,
        "prompts": 111,
        "tokens": 96,
        "steps": [20, 40, 60],
        "answers": 1,
    },
}


def jobs(settings: Settings, seeds: Sequence[int]) -> list[Job]:
    """SFT, then every algorithm under every judge, seed by seed."""
    found: list[Job] = []
    for seed in seeds:
        for judge in settings["judges"]:
            found += [{"algorithm": name, "judge": judge, "seed": seed} for name in (SFT, *settings["algorithms"])]
    return found


def make(lab: Lab, settings: Settings, job: Job) -> Mapping[str, Any]:
    """Train on the judge's pairs, and measure held-out answers after some of the steps."""
    examples = everyday("test", settings["prompts"])
    sampled = Sampled(settings["tokens"], settings["answers"], seed=job["seed"])
    if job["algorithm"] == SFT:
        return {"points": [measured(lab.answers("tiny", prompts_of(examples), sampled), examples, job["judge"], 0)]}
    recipe, loss = ALGORITHMS[job["algorithm"]]
    pairs, dropped = judged_pairs(lab, settings, job["judge"], job["seed"])
    steps = settings["steps"]
    own = [*loss, f"training.max_steps={steps[-1]}", "training.batch_size=8", "training.learning_rate=1e-3"]
    own += ["training.scheduler=constant", "evaluation.prompts=0", f"data.max_completion_length={settings['tokens']}"]
    run = lab.run(recipe, job["seed"], *own, train=pairs, held_out=pairs[:8], at=steps)
    points = [
        measured(lab.answers(run / f"at-{step}", prompts_of(examples), sampled), examples, job["judge"], step)
        for step in steps
    ]
    return {"pairs": len(pairs), "dropped": dropped, "points": points}


def reference(example: Example) -> str:
    """The best answer of the data."""
    return max(example.responses, key=lambda response: response.score or 0.0).text


def judged_pairs(lab: Lab, settings: Settings, judge: str, seed: int) -> tuple[list[Example], int]:
    """(best and worst of the start's own answers to each prompt, prompts without a pair).

    Answers that were cut are no candidates: what stands behind their end is not known.
    """
    examples = everyday("train", settings["train"])
    own = lab.answers("tiny", prompts_of(examples), Sampled(settings["tokens"], SAMPLES, seed=1000 + seed))
    scores = judged(own.texts, examples, judge)
    found = []
    for example, texts, tokens, row in zip(examples, own.texts, own.tokens, scores, strict=True):
        whole = [at for at, count in enumerate(tokens) if count < settings["tokens"]] or list(range(SAMPLES))
        best, worst = max(whole, key=lambda at: row[at]), min(whole, key=lambda at: row[at])
        if row[best] - row[worst] >= 1e-8 and texts[best] and texts[worst]:
            found.append(pair(example.prompt, texts[best], texts[worst]))
    return found, len(examples) - len(found)


def judged(texts: Sequence[Sequence[str]], examples: Sequence[Example], judge: str) -> list[list[float]]:
    """The judge's score of every answer, in [0, 1]."""
    from alignment.feedback.overlap import Rouge
    from alignment.reproduce.asking import scored

    context = [{"reference": reference(example)} for example in examples]
    return scored(Rouge("rouge1", JUDGES[judge]), prompts_of(examples), texts, context)


def measured(answers: Answers, examples: Sequence[Example], judge: str, step: int) -> dict[str, Any]:
    """Of the first answer to each prompt: the judge's score, words, and words of the reference."""
    return {
        "step": step,
        "quality": [round(row[0], 6) for row in judged(answers.texts, examples, judge)],
        "words": [len(words_of(row[0])) for row in answers.texts],
        "reference": [len(words_of(reference(example))) for example in examples],
        "kl": [round(row[0], 4) for row in answers.log_ratio],
    }


def controlled(point: Mapping[str, Any]) -> np.ndarray:
    """Quality over the length relative to the reference, where that is above 1 (LC-GREEN's rule)."""
    verbosity = np.array(point["words"]) / np.array(point["reference"])
    return np.array(point["quality"]) / np.maximum(verbosity, 1.0)


def picked(rows: Sequence[Row], algorithm: str, judge: str, by: str) -> dict[str, np.ndarray]:
    """The checkpoint of each seed that is best on every second prompt; its numbers (S, P/2) on the others."""
    chosen: dict[str, list[Any]] = {"quality": [], "controlled": [], "words": [], "kl": []}
    for row in matching(rows, {"algorithm": algorithm, "judge": judge}):
        value = controlled if by == "length-controlled" else lambda point: np.array(point["quality"])
        best = max(row["points"], key=lambda point: float(value(point)[0::2].mean()))
        for name in ("quality", "words", "kl"):
            chosen[name].append(best[name][1::2])
        chosen["controlled"].append(controlled(best)[1::2])
    return {name: np.array(values, dtype=float) for name, values in chosen.items()}


def report(settings: Settings, rows: list[Row]) -> Report:
    """Claims under the judge that grows with length, and a table for each judge."""
    return Report(
        findings=findings(settings, rows),
        sections=[section(settings, rows, judge) for judge in settings["judges"]],
        notes=[
            "Small stand-ins: `tiny` on everyday prompts for CheXagent on chest X-rays, the data's best answer for the "
            "reference report, ROUGE-1 recall for GREEN and ROUGE-1 F for BERTScore. Levels are not comparable.",
            "As in the study: four samples, best against worst, equal scores dropped; relative length is against SFT; "
            "length-controlled quality divides by max(1, words / words of the reference).",
            "A checkpoint is picked on every second prompt, and measured on the others.",
            "Of IPO, ORPO and LC-DPO the source had no figures; they are here for the order.",
        ],
    )


def findings(settings: Settings, rows: list[Row]) -> list[Finding]:
    judge = "coverage"
    sft = picked(rows, SFT, judge, "quality")
    best = {name: picked(rows, name, judge, "quality") for name in ALGORITHMS}
    held = {name: picked(rows, name, judge, "length-controlled") for name in ALGORITHMS}
    where = over(sft["words"])
    found = []
    for name in settings["algorithms"]:
        published = {"DPO": "CheXagent-2: .326 → .387", "KTO": ".249 → .328"}.get(name, "one of five")
        claim = Claim(f"{name} raises the judged quality", published, "difference to SFT", above=0.0, digits=3)
        found.append(Finding(claim, difference(best[name]["quality"], sft["quality"]), where))
    of_length = [
        (
            Claim("DPO picked by quality inflates answers", "2.51 times SFT's words", "ratio to SFT", above=1.0),
            ratio_of(best["DPO"]["words"], sft["words"]),
        ),
        (
            Claim("KTO hardly does", "1.00", f"ratio to SFT, within {KEPT}", above=1 - KEPT, below=1 + KEPT),
            ratio_of(held["KTO"]["words"], sft["words"]),
        ),
        (
            Claim(
                "picked by length-controlled quality DPO is shorter", "140.2 → 68.7 words", "words", below=0.0, digits=1
            ),
            difference(held["DPO"]["words"], best["DPO"]["words"]),
        ),
        (
            Claim("LC-DPO is shorter than DPO", "what it is made for", "words", below=0.0, digits=1),
            difference(best["LC-DPO"]["words"], best["DPO"]["words"]),
        ),
        (
            Claim("KTO raises length-controlled quality", ".218 → .293", "difference to SFT", above=0.0, digits=3),
            difference(held["KTO"]["controlled"], sft["controlled"]),
        ),
    ]
    return found + [Finding(claim, ours, where) for claim, ours in of_length]


def section(settings: Settings, rows: list[Row], judge: str) -> Section:
    heads = ["algorithm", "picked by", "published: words", "relative", "quality", "LC"]
    heads += ["ours: words", "relative", "quality", "LC quality", "KL, nats"]
    sft = picked(rows, SFT, judge, "quality")
    lines: list[list[Cell]] = []
    for name in (SFT, *settings["algorithms"]):
        for by in ("",) if name == SFT else ("quality", "length-controlled"):
            own = picked(rows, name, judge, by)
            published = PUBLISHED.get((name, by), (None,) * 4) if judge == "coverage" else (None,) * 4
            ours: list[Estimate] = [mean_of(own["words"]), ratio_of(own["words"], sft["words"])]
            ours += [mean_of(own[key]) for key in ("quality", "controlled", "kl")]
            lines.append([name, by, *published, *ours])
    return Section(f"Judge: {judge} (ROUGE-1 {JUDGES[judge]}); published: CheXagent, GREEN", heads, lines)


def draw(settings: Settings, rows: list[Row]) -> Any:
    """Quality over relative length of every checkpoint, a panel a judge."""
    judges = settings["judges"]
    figure, axes = canvas(5.2 * len(judges), 4.2, columns=len(judges))
    for plot, judge in zip(axes[0], judges, strict=True):
        start = matching(rows, {"algorithm": SFT, "judge": judge})
        words = np.mean([row["points"][0]["words"] for row in start])
        plot.plot(1.0, np.mean([row["points"][0]["quality"] for row in start]), "k*", ms=11, label=SFT)
        for name in settings["algorithms"]:
            found = matching(rows, {"algorithm": name, "judge": judge})
            steps = range(len(found[0]["points"]))
            mean = {
                key: [np.mean([row["points"][at][key] for row in found]) for at in steps]
                for key in ("words", "quality")
            }
            plot.plot(np.array(mean["words"]) / words, mean["quality"], "-o", ms=4, label=name)
        plot.set(xlabel="words, relative to SFT", ylabel="quality", title=f"judge: {judge}")
        plot.grid(alpha=0.3)
        plot.legend(frameon=False)
    return figure


TABLE = Table(
    name="direct_alignment",
    title="DPO, LC-DPO, IPO, KTO and ORPO with an automatic judge: quality, length-controlled quality, relative length",
    paper="CheXalign (2410.07025): length exploitation of direct alignment with GREEN as the judge",
    settings=SCALES,
    minutes={"smoke": 0.6, "small": 40},
    seeds={"smoke": (0,), "small": (0, 1, 2)},
    jobs=jobs,
    make=make,
    report=report,
    draw=draw,
)
