"""Ratings against rankings: how often they disagree, and which policy wins under which of them.

The disagreement is counted on the authors' data where they are there. Small scale of the rest: two simulated
annotators with the bias that the paper reports: raters give more to denser answers, rankers to better ones. Here dense
is long, and good is plainly worded. Reward models of both kinds of label pick the best of n answers of `tiny`, and both
annotators compare them with other answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment.data.example import Example
from alignment.feedback.rules import PlainWords, words_of
from alignment.reproduce import farm
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import NOT_MEASURED, difference, mean_of, over, share_of
from alignment.reproduce.lab import Lab, Sampled
from alignment.reproduce.plots import bars, canvas
from alignment.reproduce.report import Cell, Report, Section
from alignment.reproduce.rows import Row
from alignment.reproduce.sweep import everyday, matching, pair, prompts_of
from alignment.reproduce.table import Job, Settings, Table

RATINGS, RANKINGS, SFT = "ratings", "rankings", "SFT"
BAND = 0.5  # points of plain words within which two answers rank as equal
SCALES = {
    "smoke": {"train": 32, "tokens": 16, "scorer_steps": 4, "prompts": 24, "best_of": 4},
    "small": {"train": 282, "tokens": 48, "scorer_steps": 80, "prompts": 111, "best_of": 32},
}


def jobs(settings: Settings, seeds: Sequence[int]) -> list[Job]:
    """The real data once, then the labels and the three policies of each seed."""
    found: list[Job] = [{"part": "real", "seed": 0}]
    for seed in seeds:
        found.append({"part": "labels", "seed": seed})
        found += [{"part": "policy", "policy": name, "seed": seed} for name in (SFT, RATINGS, RANKINGS)]
    return found


def make(lab: Lab, settings: Settings, job: Job) -> Mapping[str, Any]:
    """One part of the table."""
    if job["part"] == "real":
        return real_disagreement()
    if job["part"] == "labels":
        return labels_disagree(lab, settings, job["seed"])
    return compared(lab, settings, job["policy"], job["seed"])


# -- annotators --------------------------------------------------------------------------------------------------------


def rating(text: str, longest: int) -> int:
    """From 1 to 7: mostly how much the answer says, a little how plainly."""
    dense = min(1.0, len(words_of(text)) / longest)
    return round(1 + 6 * (0.8 * dense + 0.02 * PlainWords().of(text)))


def ranked(first: str, second: str) -> float:
    """1 where the first answer is the more plainly worded one, 0 where the second is, 0.5 for about equal."""
    ahead = PlainWords().of(first) - PlainWords().of(second)
    return 0.5 if abs(ahead) < BAND else float(ahead > 0)


def rated(first: str, second: str, longest: int) -> float:
    """The same, derived from the ratings of both."""
    return float(np.sign(rating(first, longest) - rating(second, longest)) + 1) / 2


def training_pairs(lab: Lab, settings: Settings, seed: int) -> list[tuple[Any, str, str]]:
    """Two answers of the start to each prompt, twice."""
    prompts = prompts_of(everyday("train", settings["train"]))
    own = lab.answers("tiny", prompts, Sampled(settings["tokens"], farm.SAMPLES, seed=2000 + seed))
    return [
        (prompt, texts[at], texts[at + 1])
        for prompt, texts in zip(prompts, own.texts, strict=True)
        for at in range(0, farm.SAMPLES, 2)
        if texts[at] and texts[at + 1] and texts[at] != texts[at + 1]
    ]


def verdict(kind: str, settings: Settings, first: str, second: str) -> float:
    return rated(first, second, longest(settings)) if kind == RATINGS else ranked(first, second)


def longest(settings: Settings) -> int:
    """Words of an answer that counts as dense."""
    return settings["tokens"] * 3 // 4


# -- the parts ---------------------------------------------------------------------------------------------------------


def real_disagreement() -> dict[str, Any]:
    """Of the authors' data: pairs, and how many of them the two ways judge differently; none where they are absent."""
    from alignment.data.rating_agreement import rating_agreement
    from alignment.data.readers import load_examples
    from alignment.launch.assets import assets_root

    folder = assets_root().parent / "shared" / "data"  # beside a checkout
    sets = [folder / "sparse_feedback_rankings", folder / "sparse_feedback_ratings"]
    if not all(each.is_dir() for each in sets):
        return {"pairs": 0, "different": 0}
    rankings, ratings = (
        [example for split in ("train", "test") for example in load_examples(str(each), split=split).examples]
        for each in sets
    )
    found = rating_agreement(rankings, ratings)
    return {"pairs": found.pairs, "different": round(found.disagreement * found.pairs), "table": found.table}


def labels_disagree(lab: Lab, settings: Settings, seed: int) -> dict[str, Any]:
    """The same of the simulated annotators."""
    pairs = training_pairs(lab, settings, seed)
    different = sum(verdict(RATINGS, settings, a, b) != verdict(RANKINGS, settings, a, b) for _, a, b in pairs)
    return {"pairs": len(pairs), "different": different}


def scorer(lab: Lab, settings: Settings, kind: str, seed: int) -> Path:
    """A reward model of one kind of label; pairs that it finds equal teach nothing."""
    found: list[Example] = []
    for prompt, first, second in training_pairs(lab, settings, seed):
        p_first = verdict(kind, settings, first, second)
        if p_first != 0.5:
            found.append(pair(prompt, first, second) if p_first else pair(prompt, second, first))
    own = [f"training.max_steps={settings['scorer_steps']}", "training.learning_rate=1e-3", "training.batch_size=16"]
    return lab.run("reward", seed, *own, train=found, held_out=found[:32])


def compared(lab: Lab, settings: Settings, policy: str, seed: int) -> dict[str, Any]:
    """What both annotators say of a policy's answers beside other ones of the start."""
    prompts = prompts_of(everyday("test", settings["prompts"]))
    rival = [row[0] for row in lab.answers("tiny", prompts, Sampled(settings["tokens"], seed=5000 + seed)).texts]
    many = lab.answers("tiny", prompts, Sampled(settings["tokens"], settings["best_of"], seed=seed)).texts
    places = [0] * len(prompts)
    if policy != SFT:
        scores = farm.scores_of(scorer(lab, settings, policy, seed), prompts, many)
        places = farm.best_places(scores, settings["best_of"])
    texts = [row[at] for row, at in zip(many, places, strict=True)]
    wins = {
        kind: [float(verdict(kind, settings, a, b)) for a, b in zip(texts, rival, strict=True)]
        for kind in (RATINGS, RANKINGS)
    }
    return {"wins": wins, "words": [len(words_of(text)) for text in texts]}


# -- the table ---------------------------------------------------------------------------------------------------------


def report(settings: Settings, rows: list[Row]) -> Report:
    """Claims; who disagrees how often, and who wins under what."""
    real = matching(rows, {"part": "real"})[0]
    notes = [
        "The bias of the simulated annotators is put in by hand, as the paper found it in people and models; what is "
        "measured is whether it comes through a reward model and best-of-n to the choice of a winner.",
        "Small stand-ins: `tiny` for Alpaca-7B, another sample of the start for text-davinci-003, best of "
        f"{settings['best_of']} for best of 64; the reward model of ratings is trained on pairs with different "
        "ratings, not on the ratings themselves.",
    ]
    if not real["pairs"]:
        notes.append("The authors' data were not there, so the disagreement was not counted.")
    return Report(findings(rows), [disagreement_section(rows), winners_section(settings, rows)], notes)


def wins_of(rows: Sequence[Row], policy: str, under: str) -> np.ndarray:
    """(S, P): 1, 0.5 or 0 against another answer of the start."""
    found = matching(rows, {"part": "policy", "policy": policy})
    return np.array([row["wins"][under] for row in found], dtype=float)


def findings(rows: list[Row]) -> list[Finding]:
    real = matching(rows, {"part": "real"})[0]
    share = share_of(real["different"], real["pairs"]) if real["pairs"] else NOT_MEASURED
    claim = Claim(
        "ratings and rankings disagree on about 60 % of pairs",
        "~60 %, GPT-3.5 and people",
        "share, within 0.1",
        above=0.5,
        below=0.7,
    )
    found = [Finding(claim, share, f"{real['pairs']} pairs of the authors' data" if real["pairs"] else "")]
    sides = {kind: (wins_of(rows, RANKINGS, kind), wins_of(rows, RATINGS, kind)) for kind in (RANKINGS, RATINGS)}
    figure = "win rate of the policy of rankings less that of ratings"
    claim = Claim("the policy of rankings wins under rankings", "wins", figure, above=0.0)
    found.append(Finding(claim, difference(*sides[RANKINGS]), over(sides[RANKINGS][0])))
    claim = Claim("it does not win under ratings", "does not win", figure, below=0.0)
    found.append(Finding(claim, difference(*sides[RATINGS]), over(sides[RATINGS][0])))
    claim = Claim("how one asks decides who wins", "evaluation inconsistency", "difference of the two", above=0.0)
    gaps = [first - second for first, second in sides.values()]
    return [*found, Finding(claim, difference(*gaps), over(gaps[0]))]


def disagreement_section(rows: list[Row]) -> Section:
    real = matching(rows, {"part": "real"})[0]
    simulated = matching(rows, {"part": "labels"})
    pairs, different = (sum(row[key] for row in simulated) for key in ("pairs", "different"))
    lines: list[list[Cell]] = [
        ["authors' data (GPT-3.5)", "~0.60", real["pairs"], share_of(real["different"], real["pairs"])],
        ["simulated annotators", "", pairs, share_of(different, pairs)],
    ]
    return Section(
        "Pairs that ratings and rankings judge differently", ["annotator", "published", "pairs", "ours"], lines
    )


def winners_section(settings: Settings, rows: list[Row]) -> Section:
    heads = ["policy", "published, under rankings", "ours", "published, under ratings", "ours", "words"]
    published = {RANKINGS: ("wins", "does not"), RATINGS: ("", "")}
    lines: list[list[Cell]] = []
    for name in (SFT, RATINGS, RANKINGS):
        said = published.get(name, ("", ""))
        words = np.array([row["words"] for row in matching(rows, {"part": "policy", "policy": name})], dtype=float)
        ours = [mean_of(wins_of(rows, name, kind)) for kind in (RANKINGS, RATINGS)]
        label = name if name == SFT else f"best of {settings['best_of']} by {name}"
        lines.append([label, said[0], ours[0], said[1], ours[1], mean_of(words)])
    return Section("Win rate against another sample of the start", heads, lines)


def draw(settings: Settings, rows: list[Row]) -> Any:
    """Win rates under both protocols."""
    figure, axes = canvas(6, 3.8)
    plot = axes[0, 0]
    for number, name in enumerate((RATINGS, RANKINGS)):
        shares = [mean_of(wins_of(rows, name, kind)) for kind in (RATINGS, RANKINGS)]
        places = np.arange(2) + 0.38 * (number - 0.5)
        plot.bar(places, [e.value for e in shares], 0.36, yerr=bars(shares), capsize=3, label=f"policy of {name}")
    plot.axhline(0.5, color="0.6", lw=0.8)
    plot.set_xticks(range(2), ["judged by ratings", "judged by rankings"])
    plot.set_ylabel("win rate")
    plot.legend(frameon=False)
    return figure


TABLE = Table(
    name="ratings",
    title="Ratings against rankings: how often they disagree, and which policy wins under which protocol",
    paper="Peering through preferences (2308.15812): inconsistency, and the winners under both protocols",
    settings=SCALES,
    minutes={"smoke": 0.4, "small": 20},
    seeds={"smoke": (0,), "small": (0, 1, 2)},
    jobs=jobs,
    make=make,
    report=report,
    draw=draw,
)
