"""How different the texts of a set are: distinct n-grams, overlap with each other, distances of embeddings.

Every measure here depends on how many texts there are, so sets that are compared must be of one size: `equal_sets`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any, TypeVar

import numpy as np

from alignment.errors import UserError
from alignment.evaluation.text import shortened, visible
from alignment.feedback import checks

T = TypeVar("T")
Gram = tuple[str, ...]

GPT2_VOCABULARY = 50_257  # the vocabulary that the published expectation-adjusted numbers were taken with
ORDERS = range(1, 6)  # the n that `ead` averages over
BLEU_ORDER = 4


def tokens(text: str) -> list[str]:
    """What n-grams are made of here: what stands between white space, once full stops are taken out.

    Case and all other signs stay. As in Kirk et al. (2310.06452), but that a line's end parts two words: their code
    joins the last word of a line to the first one of the next.
    """
    return text.replace(".", "").split()


def ngrams(texts: Sequence[str], n: int) -> Counter[Gram]:
    """The n-grams of `tokens` and how often each occurs in all texts together; none reaches over two texts."""
    found: Counter[Gram] = Counter()
    for text in texts:
        words = tokens(text)
        found.update(zip(*(words[start:] for start in range(n)), strict=False))
    return found


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams over all n-grams, in (0, 1]; 0 where there is no n-gram (Li et al., 1510.03055).

    It falls with the amount of text alone, since there are only so many n-grams: longer answers look less diverse.
    """
    found = ngrams(texts, n)
    total = sum(found.values())
    return len(found) / total if total else 0.0


def expectation_adjusted_distinct(texts: Sequence[str], vocabulary: int, n: int) -> float:
    """EAD: distinct n-grams over how many C uniform draws from V are expected to give; 0 where there is no n-gram.

    EAD_n = D / (V · (1 - ((V - 1) / V)^C)), D distinct n-grams, C all of them, V = `vocabulary` for every n, as
    published (2202.13587). Near D / C for C far below V. It is 1 for as many as uniform draws give and can be above.

    Raises:
        ValueError: a vocabulary below 1.
    """
    if vocabulary < 1:
        raise ValueError(f"a vocabulary of {vocabulary} words: at least 1 is needed")
    found = ngrams(texts, n)
    total = sum(found.values())
    if not total:
        return 0.0
    # V · (1 - (1 - 1/V)^C) without the loss of digits for large V
    expected = 1.0 if vocabulary == 1 else -vocabulary * float(np.expm1(total * np.log1p(-1.0 / vocabulary)))
    return len(found) / expected


def ead(texts: Sequence[str], vocabulary: int = GPT2_VOCABULARY) -> float:
    """Mean of `expectation_adjusted_distinct` over n = 1 to 5 (Kirk et al., 2310.06452).

    Where no text has n words, that n counts as 0, as in their code: very short answers look less diverse for it.
    """
    return float(np.mean([expectation_adjusted_distinct(texts, vocabulary, n) for n in ORDERS]))


def self_bleu(texts: Sequence[str]) -> float:
    """Mean sentence BLEU of each text against all others as its references, in [0, 1]: 1 - self_bleu is a diversity.

    It is sacrebleu's BLEU-4 (tokenisation 13a, exponential smoothing, effective order) over 100; NaN for fewer than
    two texts. Takes time in proportion to the amount of text, not to the number of pairs.

    Raises:
        UserError: sacrebleu is not installed; says how to.
    """
    bleu = checks.package("sacrebleu.metrics.bleu", "self-BLEU").BLEU
    extract = checks.package("sacrebleu.metrics.helpers", "self-BLEU").extract_all_word_ngrams
    if len(texts) < 2:
        return float("nan")
    tokenise = bleu(tokenize="13a").tokenizer
    counted = [extract(tokenise(text.rstrip()), 1, BLEU_ORDER) for text in texts]
    most = _two_highest([grams for grams, _ in counted])
    lengths = np.array([length for _, length in counted])
    scores = []
    for place, (grams, length) in enumerate(counted):
        correct, total = [0] * BLEU_ORDER, [0] * BLEU_ORDER
        for gram, count in grams.items():
            highest, owner, second = most[gram]
            total[len(gram) - 1] += count
            correct[len(gram) - 1] += min(count, second if owner == place else highest)
        others = np.delete(lengths, place)
        closest = min(others[np.abs(others - length) == np.abs(others - length).min()])  # of two as close, the shorter
        found = bleu.compute_bleu(correct, total, length, int(closest), smooth_method="exp", effective_order=True)
        scores.append(found.score / 100.0)
    return float(np.mean(scores))


def _two_highest(counted: Sequence[Mapping[Gram, int]]) -> dict[Gram, tuple[int, int, int]]:
    """For each n-gram (its highest count in a text, that text's place, the highest count in any other text).

    BLEU clips by the highest count in the references; without a text itself that is the second where it holds the
    first. This makes all texts' references in one pass.
    """
    most: dict[Gram, tuple[int, int, int]] = {}
    for place, grams in enumerate(counted):
        for gram, count in grams.items():
            highest, owner, second = most.get(gram, (0, -1, 0))
            most[gram] = (count, place, highest) if count > highest else (highest, owner, max(second, count))
    return most


def embedding_distance(vectors: np.ndarray | Sequence[np.ndarray]) -> float:
    """1 - the mean cosine of two different vectors, in [0, 1 + 1/(n - 1)].

    Args:
        vectors: one embedding a text, shape (n, d), of any length above 0.

    Returns:
        NaN for fewer than two vectors, and where one is zero or not finite: it has no direction.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    n = len(rows)
    if n < 2:
        return float("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        # The squared length of the sum is n + the sum of all cosines, each pair twice.
        mean = (np.square(units.sum(axis=0)).sum() - n) / (n * (n - 1))
    return float(np.maximum(0.0, 1.0 - mean))  # below 0 by rounding alone


def nli_diversity(texts: Sequence[str], contradiction: Callable[[str, str], float]) -> float:
    """Mean of `contradiction(a, b)` over all ordered pairs of two different texts; NaN for fewer than two.

    Args:
        contradiction: how far b contradicts a by a model of natural language inference. With 1 for a contradiction, 0
            for neutral and -1 for an entailment, times the label's probability, this is in [-1, 1], and higher is more
            diverse. (Kirk et al. publish 1 - the sum of both orders, in which more contradictions *lower* the number.)
            Called n · (n - 1) times.
    """
    pairs = list(permutations(texts, 2))
    return float(np.mean([contradiction(a, b) for a, b in pairs])) if pairs else float("nan")


def equal_sets(sets: Sequence[Sequence[Any]], names: Sequence[str] | None = None) -> int:
    """The number of answers that every input has.

    Args:
        sets: the answers of each input.
        names: what the inputs are called in the error; None: input 1, input 2, …

    Raises:
        UserError: there is no input or no answer, or an input has another number of answers than the first; it names
            the first such input.
    """
    if not len(sets) or not len(sets[0]):
        raise UserError("diversity needs one or more answers to each of one or more inputs, and there is none")
    size = len(sets[0])
    for place, answers in enumerate(sets):
        if len(answers) != size:
            name = f"input {place + 1}" if names is None else shortened(visible(names[place]), 60)
            raise UserError(
                f"{name} has {_answers(len(answers))} and the first input {size}: diversity depends on how many "
                f"answers there are, so give every input the same number"
            )
    return size


def equal_models(models: Mapping[str, Sequence[Sequence[Any]]]) -> tuple[int, int]:
    """(inputs, answers to each) that every model has.

    Raises:
        UserError: as `equal_sets`, or a model has other numbers than the first one; it names the first such model.
    """
    first: tuple[str, tuple[int, int]] | None = None
    for model, sets in models.items():
        size = len(sets), equal_sets(sets)
        first = first or (model, size)
        if size != first[1]:
            (inputs, answers), (others, theirs) = size, first[1]
            raise UserError(
                f"{visible(model)} has {inputs} inputs with {_answers(answers)} each and {visible(first[0])} {others} "
                f"with {theirs}: diversity can only be compared over as many of both"
            )
    if first is None:
        raise UserError("diversity of no model: give one or more")
    return first[1]


def _answers(count: int) -> str:
    return f"{count} answer{'s' * (count != 1)}"


def per_input(sets: Sequence[Sequence[T]], measure: Callable[[Sequence[T]], float]) -> list[float]:
    """`measure` of the answers of each input: how much a model varies when it is asked the same again.

    Raises:
        UserError: as `equal_sets`.
    """
    equal_sets(sets)
    return [measure(answers) for answers in sets]


def across_inputs(sets: Sequence[Sequence[T]], measure: Callable[[Sequence[T]], float]) -> list[float]:
    """`measure` of the k-th answers of all inputs, one value for each k: how much a model varies with what is asked.

    The values share their inputs, so they are no independent sample of one another. Published numbers take k = 1 alone.

    Raises:
        UserError: as `equal_sets`.
    """
    return [measure([answers[k] for answers in sets]) for k in range(equal_sets(sets))]
