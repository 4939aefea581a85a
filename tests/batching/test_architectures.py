"""The layouts on many architectures: both against each sequence alone, and masks that are wrong are seen to be.

`python -m tests.batching.test_architectures` prints the table of docs/architecture.md.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.batching.groups import Group
from alignment.batching.packing import Batch, pack, shared_mask
from alignment.models import logps as provider
from alignment.models.logps import sum_by_completion, token_logps
from tests.batching.architectures import PADDED, SHARED, VOCABULARY, alone, build, some_groups

WINDOWED = [name for name in SHARED if "window" in name]


def scores(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """(alone, padded, shared) log-probs (N,) of the architecture `name`."""
    model, groups = build(name), some_groups()
    with torch.no_grad():
        return (
            alone(model, groups),
            token_logps(model, pack(groups, "padded")),
            token_logps(model, pack(groups, "shared")),
        )


@pytest.mark.parametrize("name", SHARED)
def test_log_probs(name: str) -> None:
    truth, padded, shared = scores(name)
    assert truth.std() > 0.3  # else nothing could go wrong
    torch.testing.assert_close(padded, truth, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared, padded, atol=1e-5, rtol=0)
    batch = pack(some_groups())
    sums = [sum_by_completion(values, batch) for values in (shared, padded)]
    torch.testing.assert_close(sums[0], sums[1], atol=0, rtol=5e-6)


@pytest.mark.parametrize("name", PADDED)
def test_padded_rows_of_models_that_take_no_mask(name: str) -> None:
    model, groups = build(name), some_groups()
    with torch.no_grad():
        torch.testing.assert_close(token_logps(model, pack(groups, "padded")), alone(model, groups), atol=1e-5, rtol=0)


def causal(batch: Batch, window: int | None = None) -> Tensor:
    """A mask that knows nothing of groups and completions."""
    rows, length = batch.input_ids.shape
    return torch.ones(length, length, dtype=torch.bool).tril().expand(rows, 1, length, length)


def window_by_rows(batch: Batch, window: int | None = None) -> Tensor:
    """The shared mask with its window cut by difference of row indices, as in a plain model."""
    order = torch.arange(batch.input_ids.shape[1])
    near = (order[:, None] - order[None, :]) < (window or len(order))
    return shared_mask(batch) & near


def no_window(batch: Batch, window: int | None = None) -> Tensor:
    return shared_mask(batch)


@pytest.mark.parametrize(
    "name, wrong",
    [(name, causal) for name in SHARED] + [(name, wrong) for name in WINDOWED for wrong in (window_by_rows, no_window)],
)
def test_a_wrong_mask_is_off_by_far(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, groups = build(name), some_groups()
    with torch.no_grad():
        padded = token_logps(model, pack(groups, "padded"))
        monkeypatch.setattr(provider, "shared_mask", wrong)
        found = token_logps(model, pack(groups, "shared"))
    assert (found - padded).abs().max() > 0.1


def gradients(name: str, layout: str, lora: bool, checkpointing: bool) -> dict[str, Tensor]:
    """d/dw of a weighted sum of completion log-probs, for every trained parameter; `alone` is the plain model."""
    model, groups = build(name, lora), some_groups()
    model.train(checkpointing)  # in eval mode nothing is checkpointed; there is no dropout
    if checkpointing and layout != "alone":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch = pack(groups, "padded" if layout == "alone" else layout)
    values = alone(model, groups) if layout == "alone" else token_logps(model, batch)
    weights = torch.linspace(-1, 1, batch.completions)
    (sum_by_completion(values, batch) * weights).sum().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def gradient_deviation(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """The largest relative distance over parameters.

    A parameter whose gradient is zero but for rounding (the bias of a key shifts every score alike) is measured against
    a thousandth of the whole gradient.
    """
    assert found.keys() == truth.keys() and truth
    floor = 1e-3 * torch.stack([value.norm() for value in truth.values()]).norm()
    return max(float((found[n] - truth[n]).norm() / truth[n].norm().clamp(min=floor)) for n in truth)


MAIN = ("Llama", "Qwen2", "Qwen3", "Mistral", "Gemma", "Phi-3", "OLMo-2", "GPT-2")
COMBINATIONS = [
    pytest.param(
        name, lora, checkpointing, marks=[] if name.startswith(MAIN) or lora == checkpointing else pytest.mark.slow
    )
    for name in SHARED
    for lora in (False, True)
    for checkpointing in (False, True)
]


@pytest.mark.parametrize("name, lora, checkpointing", COMBINATIONS)
def test_gradients(name: str, lora: bool, checkpointing: bool) -> None:
    truth = gradients(name, "alone", lora, checkpointing)
    for layout in ("padded", "shared"):
        assert gradient_deviation(gradients(name, layout, lora, checkpointing), truth) < 1e-4


def test_checkpointing_does_checkpoint() -> None:
    model = build("Llama")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    calls = []
    model.model.layers[0].self_attn.register_forward_pre_hook(lambda *unused: calls.append(1))
    token_logps(model, pack(some_groups())).sum().backward()
    assert len(calls) == 2  # once forward, once again on the way back


tokens = st.lists(st.integers(3, VOCABULARY - 1), min_size=1, max_size=12).map(tuple)
groups_of_any_shape = st.lists(
    st.builds(Group, prompt=tokens, completions=st.lists(tokens, min_size=1, max_size=8).map(tuple)),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module", params=["Llama", "Mistral, window"])
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@given(groups=groups_of_any_shape)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_groups(model: Any, groups: list[Group]) -> None:
    with torch.no_grad():
        shared, padded = (token_logps(model, pack(groups, layout)) for layout in ("shared", "padded"))
    torch.testing.assert_close(shared, padded, atol=1e-5, rtol=0)


def kind(name: str) -> str:
    if SHARED[name][2] == "eager":
        return "no SDPA path: additive masks"
    return "window in some layers" if "some layers" in name else "window" if "window" in name else "full attention"


def main() -> None:
    """The largest deviations of each kind; gradients with and without LoRA and checkpointing."""
    columns = ("padded - alone", "shared - padded", "gradient", "merely causal mask (smallest)")
    print(f"| kind | architectures | {' | '.join(columns)} |\n|---|---|---|---|---|---|")
    right = provider.shared_mask
    for chosen in dict.fromkeys(map(kind, SHARED)):
        names = [name for name in SHARED if kind(name) == chosen]
        rows = []
        for name in names:
            truth, padded, shared = scores(name)
            gradient = max(
                gradient_deviation(gradients(name, "shared", *how), gradients(name, "alone", *how))
                for how in ((False, False), (False, True), (True, False), (True, True))
            )
            provider.shared_mask = causal
            wrong = scores(name)[2]
            provider.shared_mask = right
            largest = [float((one - other).abs().max()) for one, other in ((padded, truth), (shared, padded))]
            rows.append((*largest, gradient, float((wrong - padded).abs().max())))
        *most, least = zip(*rows, strict=True)
        cells = [f"{max(column):.1e}" for column in most] + [f"{min(least):.2f}"]
        families = ", ".join(name.split(", window")[0] for name in names)
        print(f"| {chosen} | {families} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
