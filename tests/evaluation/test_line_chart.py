from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import UserError
from alignment.evaluation.line_chart import HEIGHT, MOST, WIDTH, Chart, Curve, drawn, overlaid, run_charts, style

from .fake_run import metrics, write_lines


def curve(values: list[float], **options: object) -> Curve:
    return Curve("training", np.arange(1.0, len(values) + 1), np.asarray(values, dtype=float), **options)  # type: ignore[arg-type]


def test_a_line_spans_the_frame() -> None:
    found = drawn(Chart("Loss", "nats", (curve([2.0, 1.0, 4.0]),), bounds=(0.0, 4.0)))
    left, right, top, bottom = found["frame"]
    middle = (left + right) / 2
    places = found["curves"][0]["places"]
    assert places[0] == pytest.approx((left, (top + bottom) / 2), abs=0.06)
    assert places[1] == pytest.approx((middle, top + 0.75 * (bottom - top)), abs=0.06)
    assert places[2] == pytest.approx((right, top), abs=0.06)
    assert [label for _, label in found["x"]] == ["1", "2", "3"]
    assert [label for _, label in found["y"]] == ["0", "1", "2", "3", "4"]
    assert found["last"] == "step 3: training 4"
    said = {"left": left, "right": right, "from": 1.0, "to": 3.0}
    assert found["said"] == {**said, "curves": [["training", [1.0, 2.0, 3.0], [2.0, 1.0, 4.0]]]}


@given(
    st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=12),
    st.sampled_from([None, 0.0, 0.5]),
)
def test_everything_lies_in_the_drawing(values: list[float], level: float | None) -> None:
    found = drawn(Chart("t", "u", (curve(values),), level))
    places = [*found["curves"][0]["places"], *((0, y) for y, _ in found["y"]), *((x, 0) for x, _ in found["x"])]
    assert all(math.isfinite(x) and math.isfinite(y) and 0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert level is None or 0 <= found["level"] <= HEIGHT


def test_a_long_line_is_thinned_but_keeps_its_peaks() -> None:
    values = np.sin(np.arange(50_000) / 900)
    values[12_345], values[40_001] = 9.0, -9.0
    found = drawn(Chart("t", "", (curve(values.tolist()),)))
    said = found["said"]["curves"][0]
    assert len(said[1]) <= MOST and len(found["curves"][0]["places"]) == len(said[1])
    assert said[1] == sorted(said[1]) and said[1][0] == 1 and said[1][-1] == 50_000
    assert (said[1][said[2].index(9.0)], said[1][said[2].index(-9.0)]) == (12_346, 40_002)


def test_a_run_has_its_panels_and_whatever_else_it_logged(tmp_path: Path) -> None:
    rows = metrics(random.Random(0), 20, 10)
    rows[0]["note"], rows[0]["<b>"], rows[-1]["eval_only_here"] = "text", 1.0, 2.0
    write_lines(tmp_path / "metrics.jsonl", rows)
    known, more = run_charts(tmp_path)
    assert [chart.title for chart in known] == ["Loss", "Accuracy", "Margin", "Rewards", "Gradient norm"]
    assert [chart.title for chart in more] == ["<b>", "learning_rate", "only_here", "tokens_per_second"]
    assert [(each.label, each.kind, each.said) for each in known[0].curves] == [
        ("training", "faint", True),
        ("training", "line", False),
        ("held-out", "dots", True),
    ]
    assert drawn(known[3])["names"] == [("chosen", "c0 d0"), ("rejected", "c1 d0")]
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        run_charts(tmp_path / "nowhere")


def test_runs_share_a_chart_where_they_share_a_scale() -> None:
    rows = [{"step": step, "loss": 1.0, "accuracy": 0.5} for step in range(1, 4)]
    online = [{"step": step, "loss": -40.0, "reward": 2.0} for step in range(1, 4)]
    runs = [(rows, [{"step": 2, "eval_accuracy": 0.6}]), (online, []), (rows, []), ([], [])]
    found = {chart.title: chart for chart in overlaid(["a", "b", "c", "d"], ["dpo", "p3o", "dpo", "dpo"], runs)}
    assert list(found) == ["Loss: dpo", "Accuracy", "Loss: p3o", "Reward of samples"]
    labels = {title: [(each.label, each.colour, each.kind) for each in chart.curves] for title, chart in found.items()}
    assert labels["Loss: dpo"] == [("a", 0, "line"), ("c", 2, "line")]  # another loss has another scale
    assert labels["Loss: p3o"] == [("b", 1, "line")]
    assert labels["Accuracy"] == [("a", 0, "line"), ("a, held-out", 0, "dots"), ("c", 2, "line")]
    assert [chart.title for chart in overlaid(["a"], ["dpo"], runs[:1])] == ["Loss", "Accuracy"]


def test_lines_of_many_runs_differ_by_colour_or_dashes() -> None:
    assert len({style(place) for place in range(18)}) == 18
