"""The loss section of a run: names, parameters, ranges, sums, modifiers, and one's own function."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

from alignment.config import LOSS_MODIFIERS
from alignment.errors import UserError
from alignment.losses.record import LossOutput
from alignment.trainers.loss_settings import PAIRWISE, REFERENCE_FREE, UNPAIRED, build_loss, build_unpaired_loss
from tests.launching import ROOT
from tests.losses.rows import three_rows
from tests.losses.test_unpaired import four_rows

MISTAKES = [
    ({"name": "sigmiod"}, ["unknown loss 'sigmiod'", "did you mean sigmoid"]),
    ({"name": "sigmoid", "betta": 0.1}, ["loss.betta", "did you mean beta"]),
    ({"name": "sigmoid", "beta": 0}, ["loss.beta=0: must be greater than 0"]),
    ({"name": "sigmoid", "beta": float("inf")}, ["loss.beta=inf", "finite"]),
    ({"name": "sigmoid", "beta": float("nan")}, ["loss.beta=nan"]),
    ({"name": "sigmoid", "label_smoothing": 0.5}, ["loss.label_smoothing=0.5: must be in [0, 0.5)"]),
    ({"name": "sigmoid", "beta": "much"}, ["a number is needed"]),
    ({"name": "sigmoid", "beta": True}, ["a number is needed"]),
    ({"name": "ipo", "beta": 0.1, "label_smoothing": 0.0}, ["loss.label_smoothing", "write loss=ipo"]),
    ({"name": "ipo"}, ["loss.length is needed by the loss 'ipo': mean or sum"]),
    ({"name": "ipo", "length": "men"}, ["loss.length=men: did you mean mean?"]),
    ({"name": "exo", "label_smoothing": 0}, ["must be in (0, 0.5)"]),
    ({"name": "discopop", "tau": 1.5}, ["must be in (0, 1]"]),
    ({"name": "simpo", "gamma": -1}, ["loss.gamma=-1: must be at least 0"]),
    ({"name": "kto"}, ["single answers", "recipe=kto"]),
    ({"divergence": "jss"}, ["loss.divergence=jss: did you mean js?"]),
    ({"divergence": "alpha", "divergence_alpha": 1}, ["loss.divergence_alpha=1: must be in (0, 1)"]),
    ({"ld_alpha": 1.5}, ["loss.ld_alpha=1.5: must be in [0, 1]"]),
    ({"weighting": "wpoo"}, ["loss.weighting=wpoo: did you mean wpo?"]),
    ({"name": "simpo", "divergence": "js"}, ["loss.divergence acts on log-ratios to a reference, and simpo has none"]),
    ({"name": "sft", "ld_alpha": 0.5}, ["loss.ld_alpha acts on log-ratios"]),
    ({"terms": [{"name": "hinge"}], "beta": 0.1}, ["loss.beta stands beside loss.terms"]),
    ({"terms": []}, ["loss.terms: a list such as"]),
    ({"terms": ["sigmoid"]}, ["loss.terms: a list such as"]),
    ({"terms": [{"name": "hinge"}, {"name": "stf"}]}, ["unknown loss 'stf'", "did you mean sft"]),
    ({"terms": [{"name": "hinge", "wieght": 1}]}, ["loss.terms[0].wieght"]),
    ({"terms": [{"name": "hinge", "weight": "x"}]}, ["loss.terms[0].weight=x: a number is needed"]),
    ({"name": "nowhere/mine.py:loss"}, ["loss.name=nowhere/mine.py:loss: no file nowhere/mine.py"]),
    ({"name": "no.such.module:loss"}, ["loss.name=no.such.module:loss: cannot be imported"]),
    ({"name": "alignment.losses.pairwise:hnige"}, ["no function 'hnige'", "did you mean hinge"]),
]


@pytest.mark.parametrize(("settings", "fragments"), MISTAKES, ids=[str(settings) for settings, _ in MISTAKES])
def test_mistakes(settings: dict, fragments: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build_loss(settings)
    assert "\n" not in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_nothing_said_is_dpo() -> None:
    torch.testing.assert_close(build_loss({})(three_rows()).values, PAIRWISE["sigmoid"](three_rows(), 0.1).values)


def test_which_losses_need_a_reference() -> None:
    needing = {
        name
        for name in PAIRWISE
        if build_loss({"name": name, **({"length": "sum"} if name == "ipo" else {})}).needs_reference
    }
    assert needing == set(PAIRWISE) - {"simpo", "orpo", "cpo", "sft"} and set(REFERENCE_FREE) == set(PAIRWISE) - needing
    assert build_loss({"terms": [{"name": "simpo"}, {"name": "sigmoid", "weight": 0.1}]}).needs_reference


def test_a_sum_takes_parameters_inside_and_modifiers_outside() -> None:
    terms = [{"name": "sigmoid", "beta": 0.3}, {"name": "sft", "weight": 0.2}]
    loss = build_loss({"terms": terms, "divergence": "forward_kl", "ld_alpha": 0.5, "weighting": "wpo"})
    assert (loss.divergence, loss.ld_alpha, loss.weighting) == ("forward_kl", 0.5, "wpo")
    rows = three_rows()
    expected = PAIRWISE["sigmoid"](rows, 0.3).values + 0.2 * PAIRWISE["sft"](rows).values
    torch.testing.assert_close(build_loss({"terms": terms})(rows).values, expected)
    assert terms[0] == {"name": "sigmoid", "beta": 0.3}  # what was given is left as it was


@pytest.mark.parametrize("name", PAIRWISE | UNPAIRED)
def test_file_function_and_page_agree(name: str) -> None:
    """configs/loss/NAME.yaml lists every parameter with the function's default, and the page has a row of them."""
    given = 1 if name in PAIRWISE else 2
    parameters = list(inspect.signature((PAIRWISE | UNPAIRED)[name]).parameters.values())[given:]
    file = ROOT / "configs" / "loss" / f"{name}.yaml"
    assert file.read_text().startswith("# ")
    stored = yaml.safe_load(file.read_text())
    expected = {p.name: "mean" if p.name == "length" else p.default for p in parameters}  # length has no default
    assert stored == {"name": name, **expected}
    row = next(
        line for line in (ROOT / "docs" / "losses.md").read_text().splitlines() if line.startswith(f"| `{name}` |")
    )
    for parameter in parameters:
        default = expected[parameter.name]
        assert re.search(
            rf"`{parameter.name}` (\(\w+\) )?{re.escape(f'{default:g}' if default != 'mean' else 'mean')}", row
        )
    assert row.endswith("| no |" if name in REFERENCE_FREE else "| yes |")


def test_the_shipped_sum() -> None:
    loss = build_loss(yaml.safe_load((ROOT / "configs" / "loss" / "sigmoid_sft.yaml").read_text()))
    assert [(term.name, term.weight) for term in loss.terms] == [("sigmoid", 1.0), ("sft", 0.2)]


def test_no_parameter_is_named_like_a_modifier() -> None:
    for loss in (PAIRWISE | UNPAIRED).values():
        assert set(inspect.signature(loss).parameters).isdisjoint({*LOSS_MODIFIERS, "name", "weight", "terms"})


def test_unpaired_losses() -> None:
    loss = build_unpaired_loss({"name": "kto", "beta": 0.2, "undesirable_weight": 2.0})
    expected = UNPAIRED["kto"](four_rows(), torch.tensor(0.5), 0.2, 1.0, 2.0)
    torch.testing.assert_close(loss(four_rows(), torch.tensor(0.5)).values, expected.values)
    with pytest.raises(UserError, match="loss.kl: the loss 'kto' takes no such setting"):
        build_unpaired_loss({"name": "kto", "kl": 1.0})
    with pytest.raises(UserError, match="loss.desirable_weight=0: must be greater than 0"):
        build_unpaired_loss({"name": "kto", "desirable_weight": 0})
    with pytest.raises(UserError, match="single answers need a loss of their own: kto, bco"):
        build_unpaired_loss({"name": "sigmoid"})


OWN = """
from alignment.losses.record import LossOutput, PairLogps

def steep(pairs: PairLogps, scale: float = 1.0, shape: str = "square") -> LossOutput:
    gap = scale * (pairs.chosen - pairs.rejected)
    return LossOutput(gap**2 if shape == "square" else gap.abs(), {"gap": gap.detach()})

steep.needs_reference = False
"""


def test_ones_own_function_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    loss = build_loss({"name": f"{file}:steep", "scale": 0.1, "shape": "absolute"})
    output = loss(three_rows())
    assert isinstance(output, LossOutput)
    assert output.values.tolist() == pytest.approx([1.0, 0.0, 0.6]) and not loss.needs_reference
    summed = build_loss({"terms": [{"name": f"{file}:steep", "scale": 0.1}, {"name": "hinge"}]})
    assert summed.needs_reference and "loss_steep" in summed(three_rows()).metrics
    with pytest.raises(UserError, match="loss.scael.*did you mean scale"):
        build_loss({"name": f"{file}:steep", "scael": 0.1})
    with pytest.raises(UserError, match="no function 'stepe'.*did you mean steep"):
        build_loss({"name": f"{file}:stepe"})
    file.write_text("import nothing_of_that_name")
    with pytest.raises(UserError, match="cannot be imported: ModuleNotFoundError"):
        build_loss({"name": f"{file}:steep"})


def test_ones_own_function_from_a_module() -> None:
    loss = build_loss({"name": "alignment.losses.pairwise:hinge", "beta": 0.2})
    assert loss(three_rows()).values.tolist() == pytest.approx([0.0, 1.0, 1.8]) and loss.needs_reference
