"""Asked once at load, on a small batch: are the model's own log-probs ours, and does it take the shared layout?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from alignment.batching.groups import Group
from alignment.batching.packing import Batch, pack
from alignment.errors import UserError
from alignment.models.logps import causal_lm, sum_by_completion, token_logps
from alignment.models.scores import completion_scores, is_scorer

# Nats. The largest mean distance of our log-probs from the model's own; a soft cap or scale left out is off by more.
HEAD_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
# The largest distance of the two layouts, as a share of what a mask not heeded would make of it. Models that take the
# mask were seen at up to 1e-5 in float32 and 0.02 in bfloat16 (30 layers), one that counts by row (MPT) at 0.4.
SHARE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
PROBE_WINDOW = 3
REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError)


def choose_layout(model: nn.Module, wanted: str) -> tuple[str, str | None]:
    """(layout to use, why it is not the wanted one). A model that does not take the shared mask falls back to `padded`.

    Raises:
        UserError: a model whose log-probs are not what `token_logps` makes of its hidden states.
    """
    core = causal_lm(model)
    name, dtype = type(core).__name__, next(model.parameters()).dtype
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if not is_scorer(core):
                _check_head(model, core, HEAD_TOLERANCE.get(dtype, 1e-4))
            if wanted != "shared":
                return wanted, None
            try:
                deviation, unheeded = layout_deviation(model)
            except REFUSALS as error:
                reason = " ".join(str(error).split())[:120]
                return "padded", f"{name} does not take the shared layout ({reason}): using padded rows"
    finally:
        model.train(training)
    if not deviation <= max(SHARE.get(dtype, 1e-3) * unheeded, 1e-6):
        return "padded", f"{name} is off by {deviation:.2g} in the shared layout: using padded rows"
    return "shared", None


def layout_deviation(model: nn.Module) -> tuple[float, float]:
    """(distance of the two layouts, the same with a mask that is merely causal) in nats, or in units of the score.

    The distance is the largest over completions of the mean |shared - padded| of their tokens' log-probs: half
    precision rounds single tokens far. Of a scoring model it is that of their scores. The second number is the scale of
    the first: what comes out where completions and groups see each other. Raises what the model raises when it cannot
    take the mask.
    """
    shared, padded = (_on_device(model, pack(probe(model), layout)) for layout in ("shared", "padded"))
    one_sequence = replace(shared, segments=shared.segments.clamp(max=0), branches=torch.zeros_like(shared.branches))
    with _short_window(causal_lm(model).config):
        value = completion_scores if is_scorer(model) else token_logps
        found, expected, unheeded = (value(model, batch) for batch in (shared, padded, one_sequence))

    def distance(values: Tensor) -> float:
        if is_scorer(model):
            return (values - expected).abs().max().item()
        return (sum_by_completion((values - expected).abs(), padded) / padded.lengths).max().item()

    return distance(found), distance(unheeded)


@contextmanager
def _short_window(config: Any) -> Iterator[None]:
    """A sliding window shorter than the probe, for as long as it runs: a window of 4096 would never be reached.

    Both sides read it from the configuration at every call, transformers for the padded rows and `attention_masks` for
    the shared ones, so they agree only where the model cuts its window by our mask and nothing else. A model that keeps
    a copy of its own shows here and falls back to padded rows.
    """
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    if not window or window <= PROBE_WINDOW:
        yield
        return
    text.sliding_window = PROBE_WINDOW
    try:
        yield
    finally:
        text.sliding_window = window


def _check_head(model: nn.Module, core: Any, tolerance: float) -> None:
    """Our log-probs of one short sequence against log_softmax of the logits that the model itself returns."""
    batch = _on_device(model, pack([Group((1, 2, 3), ((4, 5, 6, 7, 8),))], "padded"))
    try:
        logits: Tensor = model(input_ids=batch.input_ids).logits[0, batch.predictors].float()
        found = token_logps(model, batch)
    except AttributeError as error:
        raise UserError(f"{type(core).__name__} is not built like a causal language model: {error}") from error
    except REFUSALS:
        return  # not under these conditions, such as bfloat16 without autocast: nothing to compare
    expected = logits.log_softmax(-1).gather(-1, batch.targets[:, None]).squeeze(-1)
    off = float((found - expected).abs().mean())
    if not off <= tolerance:
        raise UserError(
            f"{type(core).__name__} changes its logits in a way that is not known here: off by {off:.2g} nats"
            "\nMend: add it to adjust_logits in alignment/models/logps.py"
        )


def probe(model: nn.Module) -> list[Group]:
    """Two groups of random tokens, always the same.

    The long completion moves the next one far from the prompt: a model that counts by row instead of position shows.
    """
    vocabulary = causal_lm(model).config.get_text_config().vocab_size
    draw = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (length,), generator=draw).tolist())

    return [Group(ids(5), (ids(4), ids(32), ids(8))), Group(ids(3), (ids(6), ids(8)))]


def _on_device(model: nn.Module, batch: Batch) -> Batch:
    return batch.to(next(model.parameters()).device)
