"""f-divergences, WPO's pair weights, LD-DPO's token weights, and weighted sums."""

from __future__ import annotations

import math

import pytest
import torch

from alignment.batching.groups import Group
from alignment.batching.packing import pack
from alignment.losses.combine import PairLoss, Term
from alignment.losses.modifiers import diverged, ld_weights, wpo_weight
from alignment.losses.pairwise import hinge, ipo, sigmoid
from alignment.losses.reference_free import sft
from tests.losses.rows import nls, three_rows

# u_w = 2, 0, -2; u_l = -5, 0, 2.
SCORES = {
    "reverse_kl": lambda u: u,
    "forward_kl": lambda u: 1 - math.exp(-u),
    "js": lambda u: math.log(2 * math.exp(u) / (1 + math.exp(u))),
    "alpha": lambda u: (1 - math.exp(-0.3 * u)) / 0.3,
}


@pytest.mark.parametrize("divergence", SCORES)
def test_divergences_by_hand(divergence: str) -> None:
    score = SCORES[divergence]
    pairs = diverged(three_rows(), divergence, alpha=0.3)
    assert pairs.chosen_ratio.tolist() == pytest.approx([score(u) for u in (2, 0, -2)])
    assert pairs.rejected_ratio.tolist() == pytest.approx([score(u) for u in (-5, 0, 2)])
    h = [0.1 * (score(w) - score(v)) for w, v in ((2, -5), (0, 0), (-2, 2))]
    output = sigmoid(pairs, 0.1)
    assert output.values.tolist() == pytest.approx([nls(x) for x in h])
    assert output.metrics["chosen_logp"].tolist() == pytest.approx([-2.5, -1.25, -2.25])  # the true ones


def test_alpha_passes_from_reverse_to_forward_kl() -> None:
    rows = three_rows()
    for alpha, divergence in ((1e-7, "reverse_kl"), (1 - 1e-9, "forward_kl")):
        found, expected = diverged(rows, "alpha", alpha), diverged(rows, divergence)
        torch.testing.assert_close(found.chosen_ratio, expected.chosen_ratio, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.rejected_ratio, expected.rejected_ratio, rtol=1e-5, atol=1e-6)


def test_the_flipped_pair_of_modified_ratios() -> None:
    pairs = diverged(three_rows(), "js")
    assert torch.equal(pairs.flipped().chosen_ratio, pairs.rejected_ratio)
    assert torch.equal(pairs.flipped().rejected_ratio, pairs.chosen_ratio)


def test_wpo_by_hand() -> None:
    # Mean alignments of two pairs: (-0.5, 0.25), (0.1, 0.2)
    mean = torch.tensor([-0.5, 0.25, 0.1, 0.2], requires_grad=True)
    weight = wpo_weight(mean)
    assert weight.tolist() == pytest.approx([math.exp(-0.25), math.exp(0.3)])
    assert not weight.requires_grad


def test_a_policy_without_preference_gives_weight_one() -> None:
    # Uniform over V tokens: log p = -log V, log sum p^2 = -log V.
    assert wpo_weight(torch.full((2,), -math.log(7)) - torch.full((2,), -math.log(7))).tolist() == [1.0]


def test_ld_weights_by_hand() -> None:
    # Completions of 3 and 5 tokens, then 4 and 1: beyond the shorter one's length a token weighs 0.25.
    batch = pack([Group((1, 2), ((3, 4, 5), (6, 7, 8, 9, 1))), Group((2,), ((5, 6, 7, 8), (9,)))])
    weights = ld_weights(batch.lengths, batch.owners, 0.25)
    assert weights.tolist() == [*[1, 1, 1], *[1, 1, 1, 0.25, 0.25], *[1, 0.25, 0.25, 0.25], 1]
    assert ld_weights(batch.lengths, batch.owners, 1.0).unique().tolist() == [1.0]


def test_weighted_sum_by_hand() -> None:
    loss = PairLoss((Term("hinge", hinge, 2.0), Term("sft", sft, 0.5, needs_reference=False)))
    output = loss(three_rows())
    # hinge at beta 0.1: 1 - (0.7, 0, -0.4); NLL 2.5, 1.25, 2.25
    assert output.values.tolist() == pytest.approx([2 * 0.3 + 1.25, 2.0 + 0.625, 2 * 1.4 + 1.125])
    assert output.metrics["loss_hinge"].tolist() == pytest.approx([0.3, 1.0, 1.4])
    assert output.metrics["loss_sft"].tolist() == pytest.approx([2.5, 1.25, 2.25])
    assert output.metrics["margin"].tolist() == pytest.approx([0.7, 0.0, -0.4])  # of the first term
    assert loss.needs_reference and not PairLoss((Term("sft", sft, needs_reference=False),)).needs_reference


def test_two_terms_of_one_name_are_told_apart() -> None:
    def other(pairs):
        return ipo(pairs, 0.5, length="sum")

    metrics = PairLoss((Term("ipo", lambda pairs: ipo(pairs, 0.5, length="mean")), Term("ipo", other)))(
        three_rows()
    ).metrics
    assert metrics["loss_ipo"].tolist() == [4.0, 1.0, 6.25] and metrics["loss_ipo_2"].tolist() == [36.0, 1.0, 25.0]


def test_modifiers_hold_for_every_term_and_leave_log_probs_alone() -> None:
    from dataclasses import replace

    terms = (Term("sigmoid", sigmoid), Term("sft", sft, 1.0, needs_reference=False))
    rows = replace(three_rows(), weight=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
    output = PairLoss(terms, divergence="js", weighting="wpo")(rows)
    expected = (sigmoid(diverged(rows, "js")).values + sft(rows).values) * rows.weight
    torch.testing.assert_close(output.values, expected)
    assert output.metrics["loss_sft"].tolist() == pytest.approx([2.5, 1.25, 2.25])
    assert output.metrics["pair_weight"].tolist() == [0.5, 1.0, 2.0]
