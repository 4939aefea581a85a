"""The story of one training run: build the trainer, answer prompts, train, answer them again, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import set_seed
from rich.console import Console

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.evaluation.card import write_model_card
from alignment.evaluation.curves import plot_curves
from alignment.evaluation.end_of_run import EndOfRun, held_out_entry, peak_memory_mb, versions
from alignment.evaluation.held_out_gaps import HeldOutGaps
from alignment.evaluation.held_out_pairs import HeldOutPairs
from alignment.evaluation.improved import ImprovedEndOfRun
from alignment.evaluation.judged import JudgedEndOfRun, held_out_judgments
from alignment.evaluation.provenance import provenance
from alignment.evaluation.ranking_plot import plot_ranking
from alignment.evaluation.report import write_report
from alignment.evaluation.summary import read_config, render_samples, render_summary, write_summary
from alignment.launch.contamination import write_contamination
from alignment.models.quantised import weights_in
from alignment.trainers import checkpoints
from alignment.trainers.best_of_n import BestOfNTrainer
from alignment.trainers.cut import CUTTrainer
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.expert_iteration import ExpertIterationTrainer
from alignment.trainers.gap_model import GapTrainer
from alignment.trainers.inputs import distinct_prompts
from alignment.trainers.kto import KTOTrainer
from alignment.trainers.nash_md import NashMDTrainer
from alignment.trainers.online_dpo import OnlineDPOTrainer
from alignment.trainers.p3o import P3OTrainer
from alignment.trainers.pit import pit_trainer
from alignment.trainers.pit_sft import ImproverTrainer
from alignment.trainers.policy_gradient import PolicyGradientTrainer
from alignment.trainers.ppo import PPOTrainer
from alignment.trainers.preference_model import PreferenceModelTrainer
from alignment.trainers.progress import ProgressBar
from alignment.trainers.reward import RewardTrainer
from alignment.trainers.sft import SFTTrainer
from alignment.trainers.termination import TERMINATION

METHODS: dict[str, Callable[..., Any]] = {
    "best_of_n": BestOfNTrainer,
    "cut": CUTTrainer,
    "dpo": DPOTrainer,
    "expert_iteration": ExpertIterationTrainer,
    "kto": KTOTrainer,
    "nash_md": NashMDTrainer,
    "online_dpo": OnlineDPOTrainer,
    "p3o": P3OTrainer,
    "pit": pit_trainer,
    "pit_gap": GapTrainer,
    "pit_sft": ImproverTrainer,
    "policy_gradient": PolicyGradientTrainer,
    "ppo": PPOTrainer,
    "preference_model": PreferenceModelTrainer,
    "reward": RewardTrainer,
    "sft": SFTTrainer,
}


@dataclass(frozen=True)
class Launch:
    """What the runs of one launch share."""

    overrides: list[str]  # as they were given
    state: PartialState
    console: Console  # of the first process; the others' is quiet


def train(config: RunConfig, folder: Path, checkpoint: Path | None, launch: Launch, shown: bool = True) -> None:
    """One training run in `folder`: build the trainer, answer prompts, train, answer them again, report.

    Args:
        checkpoint: where it goes on; None begins.
        shown: print samples and table at the end.
    """
    state, console = launch.state, launch.console
    set_seed(config.seed)
    trainer = METHODS[config.method](config=config, folder=folder, callbacks=[ProgressBar()])
    describe(trainer, console)
    started = time.perf_counter()

    end = end_of_run(trainer)
    before = answers_before(end, folder, console, state)

    if checkpoint:
        console.print(f"resuming from {checkpoint.name}", highlight=False, soft_wrap=True)
        trainer.resume(checkpoint)
    else:
        trainer.train()
    TERMINATION.raise_if_agreed(trainer.accelerator)
    trainer.save_policy(folder / "model")

    doing = [f"{end.asks} again"] if end else []
    doing += ["scoring held-out pairs"] if trainer.eval_units and not isinstance(end, HeldOutPairs) else []
    if doing:
        console.print(f"{' and '.join(doing)} …", highlight=False, soft_wrap=True)
    with kept_while_measured(trainer) if doing else nullcontext():
        summary, samples = measure(trainer, end, before)
        summary |= {"seconds": time.perf_counter() - started, "overrides": launch.overrides}
        if state.is_main_process:
            write_contamination(trainer, folder, console)
            report(folder, summary, samples, config.evaluation.shown, console if shown else Console(quiet=True))
        state.wait_for_everyone()


@contextmanager
def kept_while_measured(trainer: Any) -> Iterator[None]:
    """Within it there is a checkpoint of the last step: a run that is killed while it is measured goes on from there.

    It goes afterwards, where the settings ask for no checkpoints.
    """
    training = trainer.config.training
    try:
        trainer.keep_steps()
    except UserError as error:  # a full disk; the model is saved, and may be measured without
        if trainer.accelerator.num_processes > 1:  # the others wait
            raise
        print(f"{error}; if it is killed from here on, this run begins anew")
    yield
    if trainer.is_world_process_zero() and not training.save_steps and not training.keep_best:
        checkpoints.remove(trainer.folder, trainer.state.global_step)


def end_of_run(trainer: Any) -> EndOfRun | HeldOutPairs | None:
    """What is measured before and after: answers to held-out prompts, or how held-out pairs are ranked."""
    if isinstance(trainer, RewardTrainer):
        ranks = HeldOutGaps if isinstance(trainer, GapTrainer) else HeldOutPairs
        return ranks(trainer) if trainer.eval_units else None
    held_out = held_out_judgments(trainer)
    prompts = trainer.data.prompts or distinct_prompts(held_out)
    if not trainer.config.evaluation.prompts or not prompts:
        return None
    if hasattr(trainer, "showing"):  # its prompts hold answers that are to be improved
        end: EndOfRun = ImprovedEndOfRun(trainer, prompts)
    else:
        end = JudgedEndOfRun(trainer, prompts, held_out) if held_out else EndOfRun(trainer, prompts)
    return end if end.prompts else None


def measure(trainer: Any, end: Any, before: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(summary, samples) of a trained policy: held-out pairs, and the prompts asked again. Every rank takes a share."""
    config = trainer.config
    summary: dict[str, Any] = {
        "recipe": config.recipe,
        "method": config.method,
        "model": config.model.name,
        "seed": config.seed,
        "steps": trainer.state.global_step,
    }
    samples: list[dict[str, Any]] = []
    if trainer.eval_units:
        entry = held_out_entry(trainer.evaluate(), len(trainer.eval_units))
        summary |= {trainer.held_out_kind: entry} if entry and not isinstance(end, HeldOutPairs) else {}
    if end is not None and before is not None:
        after = end.ask()
        summary |= end.table(before, after)
        samples = end.samples(before, after)
    if isinstance(trainer, BestOfNTrainer):
        summary |= trainer.entries()
    else:
        summary["tokens_per_second"] = trainer.tokens_seen / max(trainer.train_seconds, 1e-9)
    summary |= {
        "peak_memory_mb": peak_memory_mb(),
        "data": trainer.data.counts,
        "layout": trainer.layout,
        "quantization": config.model.quantization,
        "versions": versions(),
    }
    return summary, samples


def describe(trainer: Any, console: Console) -> None:
    """What is about to be trained, in three lines."""
    config, counts, model = trainer.config, trainer.data.counts, trainer.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(weights_in(p) for p in model.parameters())
    kind = trainer.config.model.quantization
    console.print(
        f"{'streamed' if config.data.streaming else len(trainer.train_units)} training {trainer.held_out_kind}, "
        f"{len(trainer.eval_units) or len(trainer.data.prompts)} held out; "
        f"{trainer.args.max_steps} steps of {config.training.batch_size}; "
        f"{trained / 1e6:.1f} of {total / 1e6:.0f} million weights trained"
        + (f", on a base in {kind.replace('bit', ' bits')}" if kind else ""),
        highlight=False,
        soft_wrap=True,
    )
    for split, found in counts.items():
        lost = {k: v for k, v in found.items() if v and (k.startswith("left_out") or k in LOSSES)}
        if lost:
            console.print(
                f"  {split}: " + ", ".join(f"{v} {k.replace('_', ' ')}" for k, v in lost.items()), highlight=False
            )
    if trainer.layout_note:
        console.print(trainer.layout_note, highlight=False, soft_wrap=True)


LOSSES = (
    "skipped",
    "truncated",
    "prompt_too_long",
    "judgment_too_long",
    "judged_part_cut",
    "references_cut",
    "same_after_cut",
    "turns_in_answer",
)


def answers_before(end: Any, folder: Path, console: Console, state: PartialState) -> Any:
    """What the untrained model says, kept in the run folder, so that a resumed run compares with the same.

    It is asked again where a resumed run is measured otherwise: the model is still the untrained one here.
    """
    if end is None:
        return None
    file = folder / "before.json"
    kept = end.load(file) if file.is_file() else None
    if kept is not None and kept.question == end.question:
        return kept
    console.print(f"{end.asks} before training …", highlight=False, soft_wrap=True)
    answers = end.ask()
    if state.is_main_process:
        answers.save(file)
    return answers


def report(folder: Path, summary: dict[str, Any], samples: list[dict[str, Any]], shown: int, console: Console) -> None:
    """Write samples, curves, summary, report page and model card, and print the table."""
    if samples:
        rows = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        (folder / "samples.jsonl").write_text(rows, encoding="utf-8")
    trained = (folder / "model").is_dir()  # best of n trains nothing
    if trained:
        plot_curves(folder)
    plot_ranking(folder, summary)
    write_summary(folder, {**summary, "provenance": provenance(read_config(folder))})
    if trained:
        write_model_card(folder)
    write_report(folder)
    if samples:
        render_samples(samples, console, shown)
    render_summary(summary, console)
    made = f"report: {folder / 'report.html'}" + (f"   model: {folder / 'model'}" if trained else "")
    console.print(made, highlight=False, soft_wrap=True)
