"""WideDeep (LLMEval², 2308.01862): a network whose neurons are model calls that grade both answers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.data.example import Message
from alignment.feedback import checks
from alignment.feedback.asking import Asking, Verdict
from alignment.feedback.protocols import Context, Judge, Prompts
from alignment.feedback.templates import Request, load_template
from alignment.feedback.verdicts import Reply, before_verdict, marked_lines, read_words

WINDOW = 1  # a neuron sees the reviews of its neighbours up to this far away, and its own


@dataclass
class _Order:
    """One pair in one order: the answers as A and B, and what the neurons of each layer made of them."""

    prompt: list[Message]
    first: str
    second: str
    perspectives: list[str]
    reviews: list[list[str]] = field(default_factory=list)  # by layer, by neuron; "" where there is none
    grades: list[list[tuple[float, float] | None]] = field(default_factory=list)  # (of A, of B)


@dataclass(kw_only=True)
class WideDeep(Asking, Judge):
    """Which of two answers is better: 1, 0, or 0.5 where both have the same mean grade.

    The model names perspectives for the pair. In layer 1 one call for each perspective grades both answers; in a later
    layer neuron i grades again with the reviews that neurons i - 1, i and i + 1 of the layer before wrote, under the
    union of their perspectives. All of it in both orders. An answer's grade is the mean over layers, neurons and
    orders; a neuron whose grades could not be read in one of the orders is left out in both. A pair with no neuron
    left, or without perspectives, has no verdict.

    A pair costs 1 + 2 · layers · perspectives calls. The model writes; probabilities are not used.
    """

    perspectives_template: str = "perspectives"
    template: str = "review"
    later_template: str = "review_again"
    layers: int = 2
    most_perspectives: int = 4  # those beyond are left out

    def __post_init__(self) -> None:
        checks.number(self, "layers", 1, whole=True)
        checks.number(self, "most_perspectives", 1, whole=True)
        answers = ("prompt", "first", "second")
        self._ask = load_template(self.perspectives_template, ("prompt",), answers, verdicts=False)
        self._first = load_template(self.template, (*answers, "perspective"))
        self._later = load_template(self.later_template, (*answers, "perspective", "reviews"))
        super().__post_init__()
        if self.read == "probabilities":
            raise checks.WrongSetting(self, "read", "the grades are read from text")

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        perspectives = self.perspectives(prompts, first, second)
        orders: list[_Order] = []
        for prompt, a, b, views in zip(prompts, first, second, perspectives, strict=True):
            orders += [_Order(prompt, a, b, views), _Order(prompt, b, a, views)]
        for layer in range(self.layers):
            self._run_layer(orders, layer)
        return [_preferred(forward, backward) for forward, backward in zip(orders[::2], orders[1::2], strict=True)]

    def perspectives(self, prompts: Prompts, first: Sequence[str], second: Sequence[str]) -> list[list[str]]:
        """The points of view named for each pair; none where the reply holds none."""
        requests = [
            self._ask.fill({"prompt": prompt, "first": a, "second": b})
            for prompt, a, b in zip(prompts, first, second, strict=True)
        ]
        found = []
        for request, reply in zip(requests, self.replies(requests), strict=True):
            names = _between_signs(reply, request)
            if not names:
                self.counted(Verdict(math.nan, f"perspectives: {reply.failure or 'none on the line'}"))
            found.append(names[: self.most_perspectives])
        return found

    def _run_layer(self, orders: Sequence[_Order], layer: int) -> None:
        asked = [(order, neuron) for order in orders for neuron in range(len(order.perspectives))]
        template = self._later if layer else self._first
        requests = [template.fill(self._texts(order, neuron, layer)) for order, neuron in asked]
        for order in orders:
            order.reviews.append([])
            order.grades.append([])
        for (order, _), request, reply in zip(asked, requests, self.replies(requests), strict=True):
            words, failure = read_words(reply, request.line, template.verdicts, count=2)
            if words is None:
                self.counted(Verdict(math.nan, failure))
                order.grades[-1].append(None)
                order.reviews[-1].append("")
            else:
                a, b = (template.verdicts[word] for word in words)
                order.grades[-1].append((a, b))
                text = before_verdict(reply.text or "", request.line)
                order.reviews[-1].append(f"{text}\nGrade of A: {words[0]}, grade of B: {words[1]}")

    def _texts(self, order: _Order, neuron: int, layer: int) -> dict[str, Any]:
        texts: dict[str, Any] = {"prompt": order.prompt, "first": order.first, "second": order.second}
        if layer == 0:
            return {**texts, "perspective": order.perspectives[neuron]}
        near = range(max(0, neuron - WINDOW), min(len(order.perspectives), neuron + WINDOW + 1))
        reviews = [order.reviews[layer - 1][i] for i in near]
        return {
            **texts,
            "perspective": [order.perspectives[i] for i in near],
            "reviews": [review for review in reviews if review] or "none",
        }


def _between_signs(reply: Reply, request: Request) -> list[str]:
    """The distinct names between $ and & on the marked lines."""
    if reply.failure is not None:
        return []
    lines = marked_lines(reply.text or "", request.line)
    names = [name.strip() for line in lines for name in re.findall(r"\$([^$&]+)&", line)]
    return [name for name in dict.fromkeys(names) if name]


def _preferred(forward: _Order, backward: _Order) -> float:
    """The verdict on the pair: `forward` has the first answer as A, `backward` as B."""
    first = second = 0.0
    neurons = 0
    for there, back in zip(forward.grades, backward.grades, strict=True):
        for one, other in zip(there, back, strict=True):
            if one is not None and other is not None:
                first, second, neurons = first + one[0] + other[1], second + one[1] + other[0], neurons + 1
    if not neurons:
        return math.nan
    return 0.5 if first == second else float(first > second)
