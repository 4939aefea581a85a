"""Learning from written judgments, measured: what CUT detects before training, and what each method does to a model.

    python scripts/judgments.py detect --model smollm2-135m                    # planted errors: precision, recall, AUC
    python scripts/judgments.py train --out planted.jsonl --model tiny --seeds 0,1,2 training.learning_rate=1e-3
    python scripts/judgments.py train --out real.jsonl --data FILE --eval-data FILE --methods cut,hindsight,mle,kto
    python scripts/judgments.py table --out planted.jsonl

`train` takes the same steps of the same size with every method, and compares the model with its beginning on held-out
judged answers and on fresh answers to their prompts. kto reads the verdicts alone; dpo trains on a satisfactory
against an unsatisfactory answer to the same prompt, so it needs data with both. So does --critic: a reward model
(recipe=reward) of such pairs judges the fresh answers, new against old; its accuracy on held-out pairs is kept with it.
A run that is in the file already is not made again. What stands behind the options are overrides of recipe=cut, for
all methods.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.data.views import Judged, Pair, Unpaired  # noqa: E402

MARGINS = (1.0, 1.1, 1.2, 1.5, 2.0)
# name -> overrides of recipe=cut
METHODS: dict[str, list[str]] = {
    "cut": [],
    "cut, authors' code": ["loss.variant=authors_code"],
    "cut, authors' script": ["loss.variant=authors_script"],
    "hindsight": ["loss=hindsight"],
    "mle": ["loss=mle"],
    "mle of all": ["loss=mle", "loss.answers=all"],
    "unlikelihood": ["loss=unlikelihood"],
    "conditional": ["loss=conditional"],
    "forward_prediction": ["loss=forward_prediction"],
    "dpo": ["loss=mle"],  # its data; trained by DPOTrainer
    "kto": ["loss=mle", "loss.answers=all"],  # the same, by KTOTrainer
}
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Model = Annotated[str, typer.Option(help="A built-in's name, folder, run folder, hub id or .gguf file.")]


def config_of(model: str, overrides: Sequence[str]) -> Any:
    from alignment.launch.compose import Composer
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    names = {file.stem for file in (ROOT / "configs" / "model").glob("*.yaml")}
    chosen = f"model={model}" if model in names else f"model.path={model}"
    return Composer.create().config(["recipe=cut", chosen, *overrides])


# -- detection ---------------------------------------------------------------------------------------------------------


@app.command()
def detect(
    model: Model = "smollm2-135m",
    data: Annotated[str, typer.Option(help="Judged answers with meta.wrong.")] = "planted",
    split: Annotated[str, typer.Option()] = "test",
    out: Annotated[Path | None, typer.Option(help="JSON of the table.")] = None,
) -> None:
    """The detected tokens of bad answers against those that are known to be wrong, before any training."""
    from alignment.batching.judged import span_of_tokens
    from alignment.data.judged_view import judged
    from alignment.data.readers import load_examples
    from alignment.models.loading import load_model, load_tokenizer
    from alignment.trainers.judged_detection import detect as detected

    records, _ = judged(load_examples(data, split=split).examples)
    found = []
    for variant in ("paper", "authors_code"):
        config = config_of(model, [f"loss.variant={variant}"])
        tokenizer, policy = load_tokenizer(config.model), load_model(config.model)
        rows = []
        for answer in detected(policy, tokenizer, records, config):
            text = "".join(message["content"] for message in answer.record.completion)
            span = span_of_tokens(tokenizer, answer.ids, text, *answer.record.meta["wrong"])
            if span is not None:
                wrong = np.zeros(len(answer.ids), dtype=bool)
                wrong[slice(*span)] = True
                rows.append((np.array(answer.log_ratio), wrong, str(answer.record.meta.get("error"))))
        kinds = dict.fromkeys(kind for *_, kind in rows)
        for kind in ("all", *kinds):
            found.append(quality(variant, kind, [row for row in rows if kind in ("all", row[2])]))
    print(detection_table(found))
    if out is not None:
        out.write_text(json.dumps(found, indent=1))


def quality(variant: str, kind: str, rows: Sequence[tuple[np.ndarray, np.ndarray, str]]) -> dict[str, Any]:
    """Precision and recall of the detected tokens at each margin, and the area under the curve; with intervals.

    Tokens of all answers together; intervals (95 %) from resampling answers.
    """
    from alignment.evaluation.statistics import clustered_interval

    scores, wrong = np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])
    each = [auc(ratio, bad) for ratio, bad, _ in rows]
    entry: dict[str, Any] = {"variant": variant, "error": kind, "answers": len(rows), "auc": auc(scores, wrong)}
    entry["auc_within"] = float(np.nanmean(each))
    entry["share_wrong"] = float(wrong.mean())
    for margin in MARGINS:
        counts = np.array([_counts(ratio > math.log(margin), bad) for ratio, bad, _ in rows], dtype=float)
        places = np.arange(len(rows))
        for name, column in (("precision", 1), ("recall", 2)):
            value = counts[:, 0].sum() / counts[:, column].sum() if counts[:, column].sum() else math.nan

            def share(sums: np.ndarray, column: int = column) -> np.ndarray:
                with np.errstate(invalid="ignore", divide="ignore"):
                    return sums[..., 0] / sums[..., column]

            entry[f"{name}@{margin:g}"] = [value, *clustered_interval(counts, places, share)]
        entry[f"caught@{margin:g}"] = float((counts[:, 0] > 0).mean())
    return entry


def _counts(hit: np.ndarray, wrong: np.ndarray) -> tuple[int, int, int]:
    return int((hit & wrong).sum()), int(hit.sum()), int(wrong.sum())


def auc(scores: np.ndarray, wrong: np.ndarray) -> float:
    """The chance that a wrong token has a higher log-ratio than another one."""
    if wrong.all() or not wrong.any():
        return math.nan
    found = stats.mannwhitneyu(scores[wrong], scores[~wrong])
    return float(found.statistic / (wrong.sum() * (~wrong).sum()))


def detection_table(found: Sequence[dict[str, Any]]) -> str:
    heads = [f"{name} at {margin:g}" for margin in MARGINS for name in ("precision", "recall")]
    lines = [f"| variant | error | answers | tokens wrong | AUC | AUC within | {' | '.join(heads)} |"]
    lines.append("|---|---|" + "--:|" * (4 + len(heads)))
    for entry in found:
        cells = [entry["variant"], entry["error"], str(entry["answers"]), f"{100 * entry['share_wrong']:.0f} %"]
        cells += [f"{entry['auc']:.3f}", f"{entry['auc_within']:.3f}"]
        for margin in MARGINS:
            cells += [
                "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * value for value in entry[f"{name}@{margin:g}"]))
                for name in ("precision", "recall")
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# -- training ----------------------------------------------------------------------------------------------------------


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="JSON lines, one a method and seed; added to.")],
    model: Model = "smollm2-135m",
    methods: Annotated[str, typer.Option(help=f"Of: {', '.join(METHODS)}.")] = ",".join(
        name for name in METHODS if name not in ("dpo", "kto")
    ).replace("cut, ", "cut; "),
    seeds: Annotated[str, typer.Option()] = "0",
    data: Annotated[str | None, typer.Option(help="Judged answers in place of planted.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="The same, held out.")] = None,
    critic: Annotated[bool, typer.Option(help="Train a reward model on the pairs, and let it judge.")] = False,
) -> None:
    """Train with each method, and compare the model with its beginning."""
    shared = list(context.args)
    shared += [f"data.path={data}", f"data.eval_path={eval_data}", "evaluation.score=null"] if data else []
    rows = read(out)
    known = {(row["method"], row["seed"], row["model"]) for row in rows}
    for seed in map(int, seeds.split(",")):
        for name in (part.strip().replace("cut; ", "cut, ") for part in methods.split(",")):
            if (name, seed, model) not in known:
                row = {"method": name, "seed": seed, "model": model, **run(name, seed, model, shared, critic)}
                with open(out, "a") as file:
                    file.write(json.dumps(row) + "\n")
                print(name, seed, json.dumps({key: row["judged"].get(key, {}).get("difference") for key in KEYS}))
    print(training_table(read(out)))


@app.command("table")
def show(out: Annotated[Path, typer.Option()]) -> None:
    """What the file of `train` holds."""
    print(training_table(read(out)))


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def run(name: str, seed: int, model: str, shared: Sequence[str], critic: bool) -> dict[str, Any]:
    """Train with one method; the entries of the end-of-run table, and the critic's verdict."""
    from alignment.evaluation.judged import JudgedEndOfRun
    from alignment.trainers.cut import CUTTrainer

    overrides = [f"seed={seed}", *METHODS[name], *shared]
    with tempfile.TemporaryDirectory() as folder:
        trainer = CUTTrainer(config=config_of(model, overrides), folder=f"{folder}/cut")
        end = JudgedEndOfRun(trainer, trainer.data.prompts)
        before = end.ask()
        if name in ("dpo", "kto"):
            saved = by_verdicts(name, trainer, seed, model, overrides, f"{folder}/{name}")
            # The trained model in the place of the untrained one, measured in the same way.
            config = config_of(saved, overrides)
            config.reference.path, config.reference.kind = trainer.config.model.path, "frozen_copy"
            end = JudgedEndOfRun(CUTTrainer(config=config, folder=f"{folder}/after"), trainer.data.prompts)
        else:
            trainer.train()
        after = end.ask()
        found = end.table(before, after)
        found["satisfied"] = verdict(trainer, seed, model, shared, folder, end, before, after) if critic else {}
    return {key: found[key] for key in ("judged", "kl", "length", "fluency", "satisfied") if key in found}


def by_verdicts(name: str, trainer: Any, seed: int, model: str, overrides: Sequence[str], folder: str) -> str:
    """Train DPO or KTO on the verdicts of the same answers; where the model is saved."""
    from alignment.trainers.dpo import DPOTrainer
    from alignment.trainers.kto import KTOTrainer

    settings = [override for override in overrides if not override.startswith("loss")]
    records = records_of(trainer, "train")
    if name == "dpo":
        loss, kind, data = "sigmoid", DPOTrainer, pairs_of(records, seed)
        if not data:
            raise SystemExit("dpo: no prompt has a satisfactory and an unsatisfactory answer; --methods kto needs none")
    else:
        loss, kind = "kto", KTOTrainer
        data = [Unpaired(each.id, each.prompt, each.completion, each.satisfactory) for each in records]
    config = config_of(model, [*settings, f"loss={loss}", f"method={name}"])
    other = kind(config=config, train=data, eval=data[:8], folder=folder)
    other.train()
    other.save_policy(Path(folder) / "model")
    return str(Path(folder) / "model")


def records_of(trainer: Any, part: str) -> list[Judged]:
    return list(trainer.data.records.values()) if part == "train" else list(trainer.data.held_out)


def pairs_of(records: Sequence[Judged], seed: int) -> list[Pair]:
    """A satisfactory and an unsatisfactory answer to the same prompt, each answer in one pair at most."""
    groups: defaultdict[str, tuple[list[Judged], list[Judged]]] = defaultdict(lambda: ([], []))
    for record in records:
        groups[json.dumps(record.prompt)][record.satisfactory].append(record)
    found = [
        Pair(f"{good.id}|{bad.id}", good.prompt, good.completion, bad.completion)
        for wrong, right in groups.values()
        for bad, good in zip(wrong, right, strict=False)
        if bad.completion != good.completion
    ]
    random.Random(seed).shuffle(found)
    return found


def verdict(
    trainer: Any, seed: int, model: str, shared: Sequence[str], folder: str, end: Any, before: Any, after: Any
) -> dict[str, Any]:
    """How often a reward model of the same judgments prefers the new answer to the old one, and how good it is."""
    from alignment.evaluation.statistics import paired_difference, share_interval
    from alignment.feedback.trained import RewardModel
    from alignment.trainers.reward import RewardTrainer

    place = CRITIC.setdefault((seed, model), f"{tempfile.mkdtemp()}/model")
    if not Path(place).is_dir():
        settings = [override for override in shared if not override.startswith(("loss", "evaluation", "method"))]
        held_out = pairs_of(records_of(trainer, "eval"), seed)
        config = config_of(model, [f"seed={seed}", *settings, "loss=bradley_terry", "method=reward"])
        judge = RewardTrainer(
            config=config, train=pairs_of(records_of(trainer, "train"), seed), eval=held_out, folder=f"{folder}/critic"
        )
        judge.train()
        judge.save_policy(Path(place))
        ACCURACY[place] = [judge.evaluate()["eval_accuracy"], len(held_out)]
    texts = [[answer.text for answer in answers.answers] for answers in (before, after)]
    reward = RewardModel(path=place)
    old, new = (np.array(reward.score(end.prompts, each)) for each in texts)
    wins = paired_difference([0.5] * len(old), np.where(new == old, 0.5, (new > old).astype(float)).tolist())
    accuracy, pairs = ACCURACY[place]
    return {
        "wins": wins.after,
        "ci95": [0.5 + wins.low, 0.5 + wins.high],
        "critic": {"accuracy": accuracy, "pairs": pairs, "ci95": list(share_interval(accuracy, pairs))},
    }


CRITIC: dict[tuple[int, str], str] = {}  # (seed, model): where its critic is
ACCURACY: dict[str, list[Any]] = {}

KEYS = ("satisfactory", "unsatisfactory", "margin", "wrong", "right", "right_first")


def training_table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean over seeds of the change of each entry, before -> after for the first, as Markdown."""
    shown = [key for key in KEYS if any(key in row["judged"] for row in rows)]
    lines = ["| method | seeds | " + " | ".join(shown) + " | new preferred | tokens | fluency | KL |"]
    lines.append("|---|" + "--:|" * (len(shown) + 5))
    for name in dict.fromkeys(row["method"] for row in rows):
        found = [row for row in rows if row["method"] == name]
        cells = [name, str(len(found))]
        for key in shown:
            scale, unit = (100, " %") if key == "right_first" else (1, "")
            entries = [row["judged"][key] for row in found if key in row["judged"]]
            before, after = (statistics.fmean(entry[side] for entry in entries) for side in ("before", "after"))
            cell = (
                f"{scale * before:.2f} → {scale * after:.2f}{unit}"
                if scale == 1
                else f"{100 * before:.0f} → {100 * after:.0f} %"
            )
            if len(found) == 1 and "ci95" in entries[0]:
                low, high = (scale * end for end in entries[0]["ci95"])
                cell += f" [{low:+.2f}, {high:+.2f}]" if scale == 1 else f" [{low:+.0f}, {high:+.0f}]"
            cells.append(cell)
        told = [row["satisfied"] for row in found if row.get("satisfied")]
        cells.append(f"{100 * statistics.fmean(each['wins'] for each in told):.0f} %" if told else "")
        cells += [f"{statistics.fmean(row['length']['after'] for row in found):.0f}"]
        for part, key in (("fluency", "after"), ("kl", "mean")):
            values = [row[part][key] for row in found if part in row]
            cells.append(f"{statistics.fmean(values):.2f}" if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    starts = [
        f"{statistics.fmean(row[part]['before'] for row in rows):.2f} {part}"
        for part in ("length", "fluency")
        if all(part in row for row in rows)
    ]
    return "\n".join([*lines, f"\nBefore training: {', '.join(starts)}."])


if __name__ == "__main__":
    app()
