"""CUT against loops over plain floats that follow the paper and, separately, the authors' code, with padded streams."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.losses.cut import JudgedLogps, cut, unlikelihood
from alignment.losses.likelihood import CEILING, log1mexp


@dataclass
class Answer:
    """Token probabilities of one answer: plain, given j-, given j+; a satisfactory one has the first alone."""

    plain: list[float]
    judged: list[float] | None = None
    praised: list[float] | None = None


GOOD, GOOD_LONG = Answer([0.5, 0.9]), Answer([0.2, 0.7, 0.99, 0.4])
# Detected at margin 1.2, of the paper's and of the code's ratios: neither, both, the paper's alone, the code's alone.
BAD = Answer([0.3, 0.1, 0.6, 0.5], [0.2, 0.8, 0.62, 0.9], [0.3, 0.2, 0.3, 0.89])
BAD_SHORT = Answer([0.999999], [0.9999999], [0.001])  # log(1 - p) near p = 1
BAD_RARE = Answer([1e-9, 0.3], [2e-3, 0.3], [1e-4, 0.3])  # and near p = 0
NOT_DETECTED = Answer([0.4, 0.6, 0.2], [0.4, 0.3, 0.2], [0.4, 0.3, 0.21])
CASES = {
    "all satisfactory": [GOOD, GOOD_LONG],
    "all unsatisfactory": [BAD, BAD_RARE],
    "mixed": [GOOD_LONG, BAD, GOOD, BAD_SHORT],
    "nothing detected": [GOOD, NOT_DETECTED],
    "everything at the ends": [BAD_SHORT, BAD_RARE, BAD],
}


def record(answers: list[Answer], code: bool = False, dtype: torch.dtype = torch.float64) -> JudgedLogps:
    """What the losses read; `code`: detection compares with the plain prompt."""

    def flat(rows: list[list[float]]) -> torch.Tensor:
        return torch.tensor([math.log(p) for row in rows for p in row], dtype=dtype).requires_grad_()

    contrast = [a.plain if code or a.praised is None else a.praised for a in answers]
    return JudgedLogps(
        plain=flat([a.plain for a in answers]),
        judged=flat([a.judged or a.plain for a in answers]),
        contrast=flat(contrast),
        owners=torch.tensor([n for n, a in enumerate(answers) for _ in a.plain]),
        satisfactory=torch.tensor([a.judged is None for a in answers]),
    )


def by_the_paper(answer: Answer, margin: float, alpha: float, gamma: float) -> float:
    """L1 + L2 of one example."""
    count, l1, l2 = len(answer.plain), 0.0, 0.0
    for t, plain in enumerate(answer.plain):
        if answer.judged is None or answer.praised is None:
            l2 -= math.log(plain) / count
            continue
        l2 -= math.log(answer.judged[t]) / count
        if answer.judged[t] - margin * answer.praised[t] > 0:
            l1 -= alpha * answer.judged[t] ** gamma * math.log(1 - plain) / count
        else:
            l1 -= math.log(plain) / count
    return l1 + l2


def by_the_authors_code(answers: list[Answer], threshold: float, weight_unlike: float) -> float:
    """The loss of a batch as two streams of rows, padded with None to the longest and masked."""
    width = max(len(a.plain) for a in answers)

    def padded(row: list[float]) -> list[float | None]:
        return [*row, *[None] * (width - len(row))]

    first = [padded(a.judged or a.plain) for a in answers]
    second = [padded(a.plain if a.judged else []) for a in answers]
    tokens = [p for row in first for p in row if p is not None]
    loss = -sum(math.log(p) for p in tokens) / len(tokens)
    weights = [weight_unlike if a.judged else -1.0 for a in answers]
    negatives = [row for row, weight in enumerate(weights) if weight != -1]
    if not negatives:
        return loss
    logs = []
    for row in negatives:
        for p, p_negative in zip(first[row], second[row], strict=True):
            if p is None or p_negative is None:
                assert p is p_negative
                continue
            if p / p_negative > threshold:
                logs.append(weights[negatives[0]] * math.log(1 - p_negative))
            else:
                logs.append(math.log(p_negative))
    return (loss - sum(logs) / len(logs)) / 2


def step_of(answers: list[Answer]) -> torch.Tensor:
    first = sum(len(a.plain) for a in answers)
    second = sum(len(a.plain) for a in answers if a.judged)
    return torch.tensor([first, second], dtype=torch.float64) / len(answers)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("margin", "alpha", "gamma"), [(1.2, 0.5, 1.0), (1.0, 1.0, 0.25), (2.5, 0.0, 2.0)])
def test_paper(case: str, margin: float, alpha: float, gamma: float) -> None:
    output = cut(record(CASES[case]), None, "paper", margin, alpha, gamma)
    expected = [by_the_paper(answer, margin, alpha, gamma) for answer in CASES[case]]
    assert output.values.tolist() == pytest.approx(expected, rel=1e-7)  # 1 - p of 0.999999 costs the oracle digits


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("margin", "alpha"), [(1.2, 0.5), (1.1, 1.0), (3.0, 0.0), (math.inf, 1.0)])
def test_authors_code(case: str, margin: float, alpha: float) -> None:
    answers = CASES[case]
    output = cut(record(answers, code=True), step_of(answers), "authors_code", margin, alpha)
    assert output.values.mean().item() == pytest.approx(by_the_authors_code(answers, margin, alpha), rel=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_the_authors_script_is_their_code_on_one_example_at_a_time(case: str) -> None:
    output = cut(record(CASES[case], code=True), None, "authors_script", 1.2, 0.5)
    assert output.values.tolist() == pytest.approx(
        [by_the_authors_code([answer], 1.2, 0.5) for answer in CASES[case]], rel=1e-7
    )


def test_detection_by_hand() -> None:
    def detected(code: bool, margin: float) -> list[bool]:
        # A token in U is one whose plain log-prob is pushed down.
        rows = record([BAD], code)
        cut(rows, step_of([BAD]), "authors_code" if code else "paper", margin, 1.0).values.sum().backward()
        assert rows.plain.grad is not None
        return (rows.plain.grad > 0).tolist()

    assert detected(False, 1.2) == [False, True, True, False]  # 0.2/0.3, 0.8/0.2, 0.62/0.3, 0.9/0.89
    assert detected(True, 1.2) == [False, True, False, True]  # 0.2/0.3, 0.8/0.1, 0.62/0.6, 0.9/0.5
    assert detected(False, math.inf) == detected(True, math.inf) == [False] * 4
    assert detected(False, 3.0) == [False, True, False, False]


def test_the_paper_and_the_code_meet_where_they_should() -> None:
    """gamma 0, the plain prompt for j+ and halves: the same for one example; on a batch the means differ."""
    for answer in (GOOD, BAD, BAD_RARE):
        rows = record([answer], code=True)
        paper = cut(rows, None, "paper", 1.2, 0.5, 0.0).values
        half = 1.0 if answer.judged is None else 0.5
        torch.testing.assert_close(half * paper, cut(rows, None, "authors_script", 1.2, 0.5).values)
    rows = record(CASES["mixed"], code=True)
    alone, together = cut(rows, None, "authors_script"), cut(rows, step_of(CASES["mixed"]), "authors_code")
    assert not torch.isclose(alone.values.mean(), together.values.mean())


def test_without_detection_it_is_likelihood_and_alpha_zero_drops_the_detected() -> None:
    rows = record([BAD])
    nothing = cut(rows, margin=math.inf).values
    mean = sum(math.log(p) + math.log(q) for p, q in zip(BAD.plain, BAD.judged or [], strict=True)) / 4
    assert nothing.item() == pytest.approx(-mean)
    dropped = cut(rows, weight=0.0).values
    assert dropped.item() == pytest.approx(nothing.item() + (math.log(0.1) + math.log(0.6)) / 4)


def test_detection_and_weight_carry_no_gradient() -> None:
    rows = record([GOOD, BAD])
    cut(rows, exponent=2.0).values.sum().backward()
    assert rows.contrast.grad is None
    assert rows.judged.grad is not None and rows.plain.grad is not None
    # Only L2 reaches the judged pass, as a plain mean: U and p^gamma depend on it and leave no trace.
    assert rows.judged.grad.tolist() == pytest.approx([-0.5] * 2 + [-0.25] * 4)
    # d/dlogp of -alpha p(j-)^2 log(1 - p) / 4 is alpha p(j-)^2 p / (1 - p) / 4
    assert rows.plain.grad[3].item() == pytest.approx(0.5 * 0.8**2 * 0.1 / 0.9 / 4)


@pytest.mark.parametrize("variant", ["paper", "authors_code", "authors_script"])
def test_gradients(variant: str) -> None:
    answers = [GOOD, BAD, BAD_RARE]
    rows = record(answers, code=variant != "paper")
    step = step_of(answers)
    # Detection reads fixed copies here: a finite difference must not move what the gradient rightly ignores.
    frozen = rows.log_ratio

    def value(plain: torch.Tensor, judged: torch.Tensor) -> torch.Tensor:
        moved = replace(rows, plain=plain, judged=judged, contrast=judged.detach() - frozen)
        exponent = 0.0 if variant == "paper" else None
        return cut(moved, step, variant, 1.2, 0.7, exponent).values  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(value, (rows.plain, rows.judged), eps=1e-7, atol=1e-5)


def test_gradient_of_unlikelihood() -> None:
    rows = record([GOOD, BAD, BAD_RARE])
    assert torch.autograd.gradcheck(lambda p: unlikelihood(replace(rows, plain=p)).values, (rows.plain,), eps=1e-7)


def test_metrics_are_of_their_kind() -> None:
    output = cut(record([GOOD, BAD]), margin=1.2, weight=0.5)
    kinds = {"logp_satisfactory": 0}
    assert set(output.metrics) == {*kinds, "logp_unsatisfactory", "detected", "nll_with_judgment", "unlikelihood"}
    for name, metric in output.metrics.items():
        assert output.counted[name].tolist() == [name == "logp_satisfactory", name != "logp_satisfactory"]
        assert not metric.requires_grad and metric.shape == (2,)
    assert output.metrics["detected"][1].item() == 0.5
    assert output.metrics["logp_satisfactory"][0].item() == pytest.approx((math.log(0.5) + math.log(0.9)) / 2)
    assert output.metrics["logp_unsatisfactory"][1].item() == pytest.approx(sum(map(math.log, BAD.plain)) / 4)
    assert output.metrics["nll_with_judgment"][1].item() == pytest.approx(-sum(map(math.log, BAD.judged or [])) / 4)
    both = output.metrics["nll_with_judgment"] + output.metrics["unlikelihood"]
    assert both[1].item() == pytest.approx(output.values[1].item())


def test_unlikelihood_by_hand() -> None:
    values = unlikelihood(record([GOOD, BAD]), weight=0.5).values
    down = -0.5 * sum(math.log(1 - p) for p in BAD.plain) / 4
    assert values.tolist() == pytest.approx([-(math.log(0.5) + math.log(0.9)) / 2, down])


logp = st.floats(-500, 0, width=32)
token = st.tuples(logp, logp, logp)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(token, min_size=1, max_size=4)), min_size=1, max_size=4), st.data())
def test_finite_at_extremes_and_each_example_alone(answers: list, data: st.DataObject) -> None:
    """In float32, any log-probs up to 0. The paper's value of an example is the same whoever stands beside it."""
    of = [tuple(zip(*tokens, strict=True)) for _, tokens in answers]
    good = [kind for kind, _ in answers]

    def rows(chosen: list[int]) -> JudgedLogps:
        def flat(which: int) -> torch.Tensor:
            columns = [of[n][0 if good[n] else which] for n in chosen]
            return torch.tensor([p for column in columns for p in column], dtype=torch.float32).requires_grad_()

        owners = [place for place, n in enumerate(chosen) for _ in of[n][0]]
        return JudgedLogps(flat(0), flat(1), flat(2), torch.tensor(owners), torch.tensor([good[n] for n in chosen]))

    everyone = rows(list(range(len(answers))))
    values = cut(everyone, exponent=data.draw(st.sampled_from([0.0, 0.25, 2.0]))).values
    values.sum().backward()
    for tensor in (values, everyone.plain.grad, everyone.judged.grad):
        assert tensor is not None and tensor.isfinite().all()
    whole = cut(everyone).values
    order = data.draw(st.permutations(range(len(answers))))
    torch.testing.assert_close(cut(rows(list(order))).values, whole[list(order)])
    torch.testing.assert_close(torch.cat([cut(rows([n])).values for n in range(len(answers))]), whole)


def test_log1mexp_is_exact_on_both_sides() -> None:
    """Against Python's own, in double precision from single; held where p is 1 to rounding, without gradient."""
    logps = torch.tensor([-1e-5, -0.01, -0.6931, -0.6932, -3.0, -30.0, -90.0])
    expected = [math.log1p(-math.exp(x)) if x < -0.5 else math.log(-math.expm1(x)) for x in logps.double().tolist()]
    assert log1mexp(logps).tolist() == pytest.approx(expected, rel=2e-6)
    held = torch.tensor([0.0, -1e-9], requires_grad=True)
    log1mexp(held).sum().backward()
    assert log1mexp(held).tolist() == pytest.approx([math.log(-math.expm1(CEILING))] * 2, rel=1e-6)
    assert held.grad is not None and held.grad.tolist() == [0.0, 0.0]
    inner = torch.tensor([-0.1, -0.69, -0.7, -9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log1mexp, (inner,))
