"""The mean over tokens and the mean over sequences, by hand."""

from __future__ import annotations

import pytest
import torch

from alignment.losses.likelihood import nll


def test_means_by_hand() -> None:
    logps, lengths = torch.tensor([-6.0, -2.0]), torch.tensor([4, 1])
    by_sequence = nll(logps, lengths)
    assert by_sequence.values.mean().item() == pytest.approx((1.5 + 2.0) / 2)
    by_token = nll(logps, lengths, torch.tensor(2.5))
    assert by_token.values.mean().item() == pytest.approx(8 / 5)  # eight nats over five tokens
    assert by_token.metrics["nats_per_token"].tolist() == pytest.approx([1.5, 2.0])
