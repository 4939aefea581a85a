"""Values that have the right type and still make no sense, refused before any model is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from alignment.config import PARTS, RunConfig
from alignment.data.formats.registry import choose
from alignment.errors import UserError, nearest
from alignment.feedback.build import check_feedback
from alignment.feedback.checks import refuse_secrets

CHOICES = {
    "model.dtype": ("auto", "float32", "bfloat16", "float16"),
    "model.quantization": ("8bit", "4bit"),
    "model.attention": ("auto", "sdpa", "eager", "flex_attention"),
    "data.template": ("chat", "raw"),
    "data.on_bad_row": ("skip", "stop"),
    "data.part": PARTS,
    "peft.method": ("lora", "none"),
    "reference.kind": ("auto", "adapter_off", "frozen_copy"),
    "reference.when": ("step", "precompute"),
    "training.layout": ("shared", "padded"),
    "training.bf16": ("auto", True, False),
    "training.report_to": ("wandb", "tensorboard", "trackio"),
    "rollout.on_kl_limit": ("warn", "stop", "raise"),
    "guard.action": ("warn", "stop", "roll_back"),
    "pit.references": ("curriculum", "data", "policy", "mixed"),
    "pit.switch": ("share", "epoch", "plateau"),
}
MAY_BE_NULL = ("data.part", "model.quantization")

# key: (lowest, highest); a null value passes.
RANGES = {
    "seed": (0, 2**32 - 1),
    "data.limit": (1, math.inf),
    "data.eval_limit": (1, math.inf),
    "data.max_prompt_length": (1, math.inf),
    "data.max_completion_length": (1, math.inf),
    "data.workers": (1, math.inf),
    "data.shuffle_buffer": (1, math.inf),
    "peft.r": (1, math.inf),
    "peft.dropout": (0, 0.99),
    "reference.update_steps": (1, math.inf),
    "training.learning_rate": (1e-12, 1),
    "training.batch_size": (1, math.inf),
    "training.epochs": (0, math.inf),
    "training.max_steps": (1, math.inf),
    "training.token_budget": (1, math.inf),
    "training.weight_decay": (0, math.inf),
    "training.warmup_ratio": (0, 1),
    "training.max_grad_norm": (0, math.inf),
    "training.logging_steps": (1, math.inf),
    "training.eval_steps": (1, math.inf),
    "training.save_steps": (1, math.inf),
    "training.save_total_limit": (1, math.inf),
    "training.early_stopping": (1, math.inf),
    "training.skip_nonfinite": (0, math.inf),
    "guard.rows": (1, math.inf),
    "guard.held_out_looks": (2, math.inf),
    "evaluation.prompts": (0, math.inf),
    "evaluation.max_new_tokens": (1, math.inf),
    "evaluation.temperature": (0, math.inf),
    "evaluation.batch_size": (1, math.inf),
    "evaluation.shown": (0, math.inf),
    "rollout.prompts": (1, math.inf),
    "rollout.completions": (1, math.inf),
    "rollout.epochs": (1, math.inf),
    "rollout.max_new_tokens": (1, math.inf),
    "rollout.temperature": (0, math.inf),
    "rollout.top_k": (0, math.inf),
    "rollout.batch_size": (1, math.inf),
    "rollout.missing_end_penalty": (0, math.inf),
    "rollout.mixture": (0, 1),
    "rollout.mixture_end": (0, 1),
    "rollout.kl_coef_end": (0, math.inf),
    "rollout.iterations": (1, math.inf),
    "judged.downsample": (0, math.inf),
    "pit.max_reference_length": (1, math.inf),
}

# key: (below all values, above all values, in words), where an end itself makes no sense; a null value passes.
OPEN_RANGES = {
    "data.eval_fraction": (-1e-9, 1, "at least 0 and less than 1"),
    "evaluation.top_p": (0, 1.0001, "in (0, 1]"),
    "reference.update_rate": (0, 1.0001, "in (0, 1]"),
    "rollout.top_p": (0, 1.0001, "in (0, 1]"),
    "rollout.opponent_decay": (0, 1, "greater than 0 and less than 1"),
    "rollout.kl_limit": (0, math.inf, "greater than 0"),
    "pit.switch_at": (0, math.inf, "greater than 0"),
    "guard.chosen_logp_drop": (0, math.inf, "greater than 0"),
    "guard.length_ratio": (1, math.inf, "greater than 1"),
    "guard.log_ratio_limit": (0, math.inf, "greater than 0"),
}


def check_values(config: RunConfig) -> None:
    """Raises UserError for the first value that is not among its choices, outside its range, or no data format."""
    refuse_secrets(asdict(config))
    for key, options in CHOICES.items():
        given = _get(config, key)
        for value in given if isinstance(given, list) else [given]:
            if value not in options and not (value is None and key in MAY_BE_NULL):
                known = [str(option).lower() if isinstance(option, bool) else option for option in options]
                raise UserError(f"{key}={value}: {nearest(str(value), known)} (known: {', '.join(known)})")
    for key, (low, high) in RANGES.items():
        value = _get(config, key)
        if value is not None and not low <= value <= high:
            limits = f"between {low} and {high}" if high < math.inf else f"at least {low}"
            raise UserError(f"{key}={value}: must be {limits}")
    for key, (low, high, words) in OPEN_RANGES.items():
        value = _get(config, key)
        if value is not None and not low < value < high:
            raise UserError(f"{key}={value}: must be {words}")
    choose(config.data.format)
    for key, feedback in (
        ("feedback", config.feedback),
        ("evaluation.score", config.evaluation.score),
        ("guard.held_out", config.guard.held_out),
    ):
        if feedback:
            check_feedback(feedback, key)
    training = config.training
    for name in ("keep_best", "early_stopping"):
        if getattr(training, name) and training.eval_steps is None:
            raise UserError(f"training.{name} needs training.eval_steps=N: there is nothing to compare otherwise")
    if config.guard.action == "roll_back" and training.save_steps is None and not training.keep_best:
        raise UserError("guard.action=roll_back needs training.save_steps=N: there is nothing to go back to otherwise")
    if config.guard.log_ratio_limit is not None and "beta" not in config.loss:
        raise UserError("guard.log_ratio_limit needs a loss with loss.beta, whose implicit rewards it divides by it")
    if config.model.objectives and config.method != "reward":
        raise UserError(f"model.objectives are for recipe=reward, not for the method {config.method}")
    if config.pit.switch == "share" and config.pit.switch_at >= 1:
        raise UserError(f"pit.switch_at={config.pit.switch_at}: with pit.switch=share it is a share, below 1")
    for key in ("reference.cache", "data.cache"):
        if not isinstance(_get(config, key), (bool, str)):
            raise UserError(f"{key}={_get(config, key)}: true, false or a folder is needed")
    _check_quantisation(config)
    if config.reference.kind == "adapter_off" and config.peft.method == "none":
        raise UserError("reference.kind=adapter_off needs peft=lora; with peft=none use frozen_copy (or auto)")
    if config.reference.update_steps is not None:
        if config.reference.when == "precompute":
            raise UserError("reference.when=precompute cannot go with reference.update_steps: the reference moves")
        if config.reference.path or config.reference.kind == "adapter_off":
            other = "path" if config.reference.path else "kind=adapter_off"
            raise UserError(f"reference.update_steps moves a copy of the policy: leave out reference.{other}")


def _check_quantisation(config: RunConfig) -> None:
    """What asks for bitsandbytes has it, and nothing would have to change a quantised base."""
    kind, optimizer = config.model.quantization, config.training.optimizer
    for asked, setting in (
        (kind, f"model.quantization={kind}"),
        ("8bit" in optimizer or optimizer.startswith("paged_"), f"training.optimizer={optimizer}"),
    ):
        if asked:
            from alignment.models.quantised import require

            require(setting)
    if kind is None:
        return
    if config.peft.method == "none":
        raise UserError(f"model.quantization={kind} freezes the base, and peft=none trains all of it: give peft=qlora")
    for key, value in (
        ("reference.update_steps", config.reference.update_steps),
        ("rollout.opponent_decay", config.rollout.opponent_decay),
    ):
        if value is not None:
            raise UserError(f"{key} moves a copy of all weights, which model.quantization={kind} cannot: leave out one")


def check_sources(config: RunConfig) -> None:
    """Raises UserError where a launched run names no model or no data."""
    if not config.model.path:
        raise UserError("no model: give model=NAME, or model.path=FOLDER|HUB-ID|FILE.gguf")
    if not config.data.path:
        raise UserError("no data: give data=everyday, or data.path=FILE|FOLDER|HUB-ID")


def _get(config: RunConfig, key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = getattr(node, part)
    return node
