"""Imitation learning from language feedback (ILF; Scheurer et al., 2303.16755), in the form that CUT is compared with.

Stage 1: a refiner, the policy itself unless another is named, is shown each unsatisfactory answer with its instruction
and its judgment, and writes it anew. Stage 2 trains the policy on what came of it: with loss=nll it imitates the
refined answers (ILF-MLE), with a loss on pairs, such as loss=sigmoid, it prefers each to the answer that it was made of
(ILF-DPO). The loss says which, so there is no second setting that could contradict it.

Scheurer et al. sample many refinements and keep the one that fits the judgment best by an embedding; here, as in the
comparison of Xu et al. (2312.14591), one is sampled and taken. A refinement is left out and counted where it is the
answer again (but for white space and case), has no text, or was cut at rollout.max_new_tokens.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from alignment.batching.judged import answer_text
from alignment.config import ModelConfig, RunConfig
from alignment.data.example import Example, Judgment, Preference, Response
from alignment.data.judgment_prompts import JudgmentTemplate, load_judgment_template
from alignment.data.readers import load_examples
from alignment.data.refine_prompts import load_refine_template
from alignment.data.slot_templates import quoted
from alignment.data.views import Judged
from alignment.errors import UserError
from alignment.evaluation.judgment_rows import LEFT_OUT
from alignment.evaluation.summary import read_samples
from alignment.launch.sampled import sampled_answers, sampling, write_examples
from alignment.launch.stages import Stages
from alignment.models.loading import load_tokenizer
from alignment.trainers.inputs import read_judged
from alignment.trainers.loss_settings import JUDGED, build_loss, build_sft_loss

ANSWERS, REFINED, HELD_OUT = (f"1-refine/{name}.jsonl" for name in ("answers", "refined", "held-out"))
TRAINED = "2-train"


class NothingRefined(UserError):
    """There is no refined answer to train on."""


def ilf(stages: Stages) -> None:
    """Refine, train, and the table of a run on judged answers."""
    config = stages.config
    method = method_of(config)
    judged_template = load_judgment_template(config.judged.template)
    records, held_out, counts = read_judged(config)
    tasks = refinements(config, [record for record in records if not record.satisfactory])
    settings = sampling(config, config.seed, 1)
    made = stages.step(ANSWERS, lambda out: sampled_answers(stages, out, as_prompts(tasks), refiner(config), settings))

    def keep(out: Path) -> dict[str, int]:
        return stages.on_first(lambda: write_refined(out, stages.folder / ANSWERS, tasks, judged_template))

    def hold_out(out: Path) -> None:
        stages.on_first(lambda: write_examples(out, [judged_example(record, judged_template) for record in held_out]))

    found = {"asked": len(tasks), "too_long": len(tasks) - made["prompts"], **stages.step(REFINED, keep)}
    lost = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in found.items() if value and key in LEFT_OUT)
    stages.say(f"{found['refined']} of {len(tasks)} answers refined{f'; left out: {lost}' if lost else ''}")
    if not found["refined"]:
        raise NothingRefined(
            f"none of {len(tasks)} unsatisfactory answers was refined: {lost}\n"
            "Mend: another model (ilf.refiner), more room (rollout.max_new_tokens), or another rollout.temperature"
        )
    stages.step(HELD_OUT, hold_out)
    summary = stages.train(TRAINED, training(stages, method, bool(held_out)))
    data = {"judged": counts["train"], "refined": found, **summary["data"]}
    stages.finish({**summary, "refined": found, "data": data}, read_samples(stages.folder / TRAINED), [TRAINED])


def method_of(config: RunConfig) -> str:
    """How the policy is trained on refined answers, by the loss; UserError for one that cannot be."""
    name = str(config.loss.get("name", "nll"))
    if name in JUDGED:
        raise UserError(
            f"loss={name}: recipe=ilf imitates refined answers with loss=nll, or with a loss on pairs, such as "
            "loss=sigmoid, prefers them to what they were made of"
        )
    if name == "nll":
        build_sft_loss(config.loss)
        return "sft"
    build_loss(config.loss)
    return "dpo"


def refiner(config: RunConfig) -> ModelConfig:
    """The model that writes answers anew."""
    if config.ilf.refiner:
        return ModelConfig(config.ilf.refiner, config.ilf.refiner, dtype=config.model.dtype)
    return replace(config.model, path=config.peft.path or config.model.path)


def refinements(config: RunConfig, records: list[Judged]) -> dict[str, Judged]:
    """What the refiner is asked, as JSON, and of which answer: a message list with instruction, answer and judgment.

    Raises:
        UserError: no unsatisfactory answer, or a template that is not there or lacks a slot.
    """
    template, tokenizer = load_refine_template(config.ilf.template, "ilf.template"), load_tokenizer(refiner(config))
    if not records:
        raise UserError("no judged answer is unsatisfactory: there is nothing to refine")
    found: dict[str, Judged] = {}
    for record in records:
        answer, _ = quoted(answer_text(record), tokenizer, config.data.max_completion_length, template.cut)
        asked = template.to_refine(record.prompt, answer, record.judgment or "")
        found.setdefault(json.dumps(asked), record)
    return found


def as_prompts(tasks: Mapping[str, Judged]) -> list[Example]:
    return [Example(json.loads(asked)) for asked in tasks]


def write_refined(out: Path, answers: Path, tasks: Mapping[str, Judged], template: JudgmentTemplate) -> dict[str, int]:
    """Each refined answer beside the one that it was made of, as a pair; counts of these and of what is left out."""
    counts: Counter[str] = Counter(refined=0, unchanged=0, empty=0, cut=0)
    found: list[Example] = []
    for example in load_examples(str(answers)).examples:
        record = tasks[json.dumps(example.prompt)]
        reason = why_not(example, record)
        counts[reason or "refined"] += 1
        if reason is None:
            pair = judged_example(record, template)
            pair.responses.append(example.responses[0])
            pair.preferences.append(Preference(1, 0))
            found.append(pair)
    write_examples(out, found)
    return dict(counts)


def why_not(example: Example, record: Judged) -> str | None:
    """Why a refinement is left out."""
    if not example.responses:
        return "empty"
    if example.meta["sampled"][0]["cut"][0]:
        return "cut"
    old, new = (" ".join(text.split()).casefold() for text in (answer_text(record), example.responses[0].text))
    return "unchanged" if old == new else None


def judged_example(record: Judged, template: JudgmentTemplate) -> Example:
    """A judged answer as an example record, its prompt as the policy is asked."""
    note = Judgment(record.judgment, record.satisfactory)
    return Example(
        template.asked(record.prompt), [Response(record.completion, judgments=[note])], meta=dict(record.meta)
    )


def training(stages: Stages, method: str, held_out: bool) -> RunConfig:
    """The run of stage 2."""
    own = copy.deepcopy(stages.config)
    own.method, own.recipe = method, f"{own.recipe}, stage 2"
    own.data.path, own.data.eval_path, own.data.eval_fraction = str(stages.folder / REFINED), None, 0.0
    own.data.format, own.data.limit, own.data.part = "auto", None, None
    own.evaluation.judged = str(stages.folder / HELD_OUT) if held_out else None
    return own
