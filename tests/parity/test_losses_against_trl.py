"""Every loss that TRL's DPOTrainer has, on the same tiny model and batch: loss within 1e-5, gradient within 1e-4."""

from __future__ import annotations

from typing import Any

import pytest

from alignment.losses.combine import PairLoss, Term
from alignment.losses.record import LossOutput, PairLogps
from tests.parity.bench import (
    PEER_ARGUMENTS,
    TINY,
    Measured,
    agree,
    distance,
    gradient,
    our_trainer,
    ours,
    peer_model,
    text_rows,
)

trl = pytest.importorskip("trl")


class Bench:
    """Both trainers; TRL's settings are set on its trainer before each measurement."""

    def __init__(self, folder: Any) -> None:
        import datasets

        from alignment.models.loading import load_model, load_tokenizer

        self.trainer = our_trainer(folder / "ours")
        self.peer = trl.DPOTrainer(
            model=peer_model(self.trainer),
            ref_model=load_model(TINY),
            # use_weighting is read when the model is patched; `theirs` switches it.
            args=trl.DPOConfig(output_dir=str(folder / "trl"), use_weighting=True, **PEER_ARGUMENTS),
            train_dataset=datasets.Dataset.from_list(text_rows()),
            processing_class=load_tokenizer(TINY),
        )
        self.peer.model.eval()
        self.inputs = self.peer._prepare_inputs(next(iter(self.peer.get_train_dataloader())))

    def theirs(self, *types: str, weights: tuple[float, ...] | None = None, **settings: Any) -> Measured:
        defaults = dict(
            beta=0.1,
            label_smoothing=0.0,
            ld_alpha=None,
            use_weighting=False,
            f_divergence_type="reverse_kl",
            f_alpha_divergence_coef=0.5,
        )
        for name, value in (defaults | settings).items():
            assert hasattr(self.peer, name), name
            setattr(self.peer, name, value)
        self.peer.loss_types, self.peer.loss_weights = list(types), list(weights or [1.0] * len(types))
        self.peer.model.zero_grad()
        loss = self.peer.compute_loss(self.peer.model, self.inputs)
        loss.backward()
        return float(loss.detach()), gradient(self.peer.model)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("parity"))


SAME = {
    "sigmoid": ({"name": "sigmoid", "beta": 0.3}, ["sigmoid"], {"beta": 0.3}),
    "hinge": ({"name": "hinge"}, ["hinge"], {}),
    "ipo": ({"name": "ipo", "length": "mean", "beta": 1.0}, ["ipo"], {"beta": 1.0}),
    "exo": ({"name": "exo", "label_smoothing": 0.01}, ["exo_pair"], {"label_smoothing": 0.01}),
    "nca": ({"name": "nca", "beta": 0.1}, ["nca_pair"], {}),
    "robust": ({"name": "robust", "label_smoothing": 0.2}, ["robust"], {"label_smoothing": 0.2}),
    "bco_pair": ({"name": "bco_pair"}, ["bco_pair"], {}),
    "sppo": ({"name": "sppo", "beta": 0.05}, ["sppo_hard"], {"beta": 0.05}),
    "apo_zero": ({"name": "apo_zero"}, ["apo_zero"], {}),
    "apo_down": ({"name": "apo_down"}, ["apo_down"], {}),
    "discopop": ({"name": "discopop", "beta": 0.1}, ["discopop"], {}),
    "sigmoid_norm": ({"name": "sigmoid_norm", "beta": 2.0}, ["sigmoid_norm"], {"beta": 2.0}),
    "forward_kl": (
        {"beta": 0.01, "divergence": "forward_kl"},
        ["sigmoid"],
        {"beta": 0.01, "f_divergence_type": "forward_kl"},
    ),
    "js": ({"divergence": "js"}, ["sigmoid"], {"f_divergence_type": "js_divergence"}),
    "js ipo": (
        {"name": "ipo", "length": "mean", "beta": 1.0, "divergence": "js"},
        ["ipo"],
        {"beta": 1.0, "f_divergence_type": "js_divergence"},
    ),
    # The paper's alpha is one minus TRL's: f'(t) = (1 - t^-a) / a there, (t^(c - 1) - 1) / (c - 1) here, c = 1 - a.
    "alpha": (
        {"divergence": "alpha", "divergence_alpha": 0.3},
        ["sigmoid"],
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7},
    ),
    "ld_dpo": ({"name": "sigmoid", "ld_alpha": 0.3}, ["sigmoid"], {"ld_alpha": 0.3}),
    "wpo": ({"name": "sigmoid", "weighting": "wpo"}, ["sigmoid"], {"use_weighting": True}),
    "wpo ipo ld_dpo js": (
        {"name": "ipo", "length": "mean", "weighting": "wpo", "ld_alpha": 0.5, "divergence": "js"},
        ["ipo"],
        {"use_weighting": True, "ld_alpha": 0.5, "f_divergence_type": "js_divergence"},
    ),
    "a weighted sum": (
        {"terms": [{"name": "sigmoid", "weight": 0.8}, {"name": "bco_pair", "weight": 0.2}]},
        ["sigmoid", "bco_pair"],
        {"weights": (0.8, 0.2)},
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_same(case: str, bench: Bench) -> None:
    settings, types, theirs = SAME[case]
    agree(ours(bench.trainer, settings), bench.theirs(*types, **theirs))


def token_mean(pairs: PairLogps) -> LossOutput:
    """NLL of the chosen answers as one mean over all tokens of the batch: TRL's `sft`."""
    share = -pairs.chosen / pairs.chosen_length.sum() * len(pairs.chosen)
    return LossOutput(share)


def test_sft_is_a_mean_over_the_batchs_tokens_in_trl(bench: Bench) -> None:
    """TRL's fault: its mean over the tokens of a device's batch weighs an example by its length, and depends on how a
    step is cut. Ours is each example's mean, then the mean over examples. With TRL's weights put in, both agree."""
    theirs = bench.theirs("sft")
    agree(ours(bench.trainer, PairLoss((Term("sft", token_mean, needs_reference=False),))), theirs)
    assert distance(ours(bench.trainer, {"name": "sft"}), theirs)[0] > 1e-3


def test_a_sum_with_sft(bench: Bench) -> None:
    from alignment.losses.pairwise import sigmoid

    loss = PairLoss((Term("sigmoid", sigmoid), Term("sft", token_mean, 0.2, needs_reference=False)))
    agree(ours(bench.trainer, loss), bench.theirs("sigmoid", "sft", weights=(1.0, 0.2)))


def test_trl_ignores_label_smoothing_of_its_default_loss(bench: Bench) -> None:
    """TRL's fault: `label_smoothing` with `sigmoid` changes nothing there. cDPO is (1 - e) plain + e flipped, and TRL's
    own pieces give it: with robust = ((1 - e) plain - e flipped) / (1 - 2e) it is 2 (1 - e) plain - (1 - 2e) robust."""
    e = 0.2
    plain, robust = bench.theirs("sigmoid"), bench.theirs("robust", label_smoothing=e)
    assert bench.theirs("sigmoid", label_smoothing=e)[0] == plain[0]
    a, b = 2 * (1 - e), -(1 - 2 * e)
    expected = (
        a * plain[0] + b * robust[0],
        {name: a * plain[1][name] + b * robust[1][name] for name in plain[1]},
    )
    agree(ours(bench.trainer, {"name": "sigmoid", "label_smoothing": e}), expected)


@pytest.mark.parametrize("types, terms", [(("hinge",), ["hinge"]), (("sigmoid", "sft"), ["sigmoid", "sft"])])
def test_weights_that_trl_cannot_run(types: tuple[str, ...], terms: list[str], bench: Bench) -> None:
    """TRL's fault: it multiplies by WPO's weights in place, which breaks the gradient of `hinge` and an expanded `sft`.
    Ours weighs the pair's whole sum: the loss is the mean of weight times value, and the weights are the same as TRL's,
    which `test_same[wpo]` compares."""
    with pytest.raises(RuntimeError, match="inplace operation|single memory location"):
        bench.theirs(*types, use_weighting=True)
    loss, grads = ours(bench.trainer, {"terms": [{"name": name} for name in terms], "weighting": "wpo"})
    output = bench.trainer.run(bench.trainer.model, bench.trainer.train_units)
    plain = ours(bench.trainer, {"terms": [{"name": name} for name in terms]})
    values = bench.trainer.run(bench.trainer.model, bench.trainer.train_units).values
    assert loss == pytest.approx(float((values * output.metrics["pair_weight"]).mean().detach()), rel=1e-5)
    assert distance((loss, grads), plain)[1] > 1e-3  # and the weights do something
