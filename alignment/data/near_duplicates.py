"""The text most like another among many, by the cosine of their counts of character n-grams: no model is needed.

Counts are hashed, with random signs, into a few hundred dimensions, where the cosine of two texts is theirs up to
chance (a standard deviation of at most about 1 / sqrt(DIMENSIONS)). Whatever comes within a margin of the threshold
there is then computed exactly: a reported cosine is exact, and hardly any above the threshold is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from alignment.data.overlap_texts import words

LETTERS = 5  # characters of a gram, the spaces between words among them
DIMENSIONS = 512
MARGIN = 3.5 / np.sqrt(DIMENSIONS)  # below the threshold a hashed cosine is still looked at
_MIX = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 8_000_000  # products alive at a time: 32 MB in float32


class NearestTexts:
    """For each held text, the streamed one most like it.

    Args:
        texts: the held ones.
        threshold: a cosine below it is of no interest.

    Attributes:
        cosines: (E,) the highest so far, exact; 0 where none came near the threshold.
        rows: (E,) the row it is of; -1 for none.
    """

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self.threshold = threshold
        self._counts = [_counts(_grams([text])[0]) for text in texts]
        self._hashed = _hashed(*_grams(texts), len(texts))
        self.cosines = np.zeros(len(texts))
        self.rows = np.full(len(texts), -1, dtype=np.int64)

    @property
    def batch(self) -> int:
        """How many texts to stream at a time, for bounded memory."""
        return max(1, min(4096, _BLOCK // max(1, len(self.rows))))

    def add(self, rows: Sequence[int], texts: Sequence[str]) -> None:
        """Stream a batch of texts with the rows that they are of."""
        grams, owners = _grams(texts)
        likeness = self._hashed @ _hashed(grams, owners, len(texts)).T
        best = likeness.argmax(axis=1)
        near = likeness[np.arange(len(best)), best] + MARGIN
        bounds = np.searchsorted(owners, np.arange(len(texts) + 1))
        for held in np.flatnonzero((near >= self.threshold) & (near > self.cosines)):
            text = best[held]
            exact = _cosine(self._counts[held], _counts(grams[bounds[text] : bounds[text + 1]]))
            if exact >= self.threshold and exact > self.cosines[held]:
                self.cosines[held], self.rows[held] = exact, rows[text]


def _grams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(hashes of all character grams, uint64; the text each is of), in order. A text is its words between spaces."""
    plain = [f" {' '.join(found)} " if (found := words(text)) else "" for text in texts]
    plain = [text.ljust(LETTERS) if text else "" for text in plain]
    letters = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    owners = np.repeat(np.arange(len(plain)), [len(text) for text in plain])
    starts = np.arange(max(0, len(letters) - LETTERS + 1))
    starts = starts[owners[starts] == owners[starts + LETTERS - 1]]
    hashes = np.zeros(len(starts), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for step in range(LETTERS):
            hashes = (hashes + letters[starts + step]) * _MIX
            hashes ^= hashes >> np.uint64(29)
    return hashes, owners[starts]


def _hashed(grams: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """Signed counts of each text's grams in DIMENSIONS, of length 1; (count, DIMENSIONS) float32."""
    place = owners * DIMENSIONS + (grams % np.uint64(DIMENSIONS)).astype(np.int64)
    sign = 1.0 - 2.0 * ((grams >> np.uint64(63)) & np.uint64(1)).astype(np.float64)
    table = np.bincount(place, weights=sign, minlength=count * DIMENSIONS).reshape(count, DIMENSIONS)
    return _unit_length(table).astype(np.float32)


def _counts(grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct grams, sorted, and their counts, of length 1."""
    found, counts = np.unique(grams, return_counts=True)
    return found, counts / np.linalg.norm(counts) if len(counts) else counts.astype(np.float64)


def _cosine(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    _, one, other = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    return min(1.0, float(first[1][one] @ second[1][other]))


def nearest_vectors(
    held: np.ndarray, streamed: Iterable[tuple[Sequence[int], np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """For each held vector the streamed one of highest cosine, after the mean is taken off.

    Mean-pooled states of a language model all point in nearly one direction, so that their plain cosines say little.
    The mean is that of the held vectors and the first batch.

    Args:
        held: (E, d).
        streamed: batches of (rows, vectors (b, d)).

    Returns:
        (cosines (E,), rows (E,)); NaN and -1 where nothing is streamed.
    """
    cosines, rows = np.full(len(held), np.nan), np.full(len(held), -1, dtype=np.int64)
    mean, centred = np.empty(0), held
    for places, vectors in streamed:
        if not len(mean):
            mean = np.concatenate([held, vectors]).mean(axis=0)
            centred = _unit_length(held - mean)
        likeness = centred @ _unit_length(vectors - mean).T
        best = likeness.argmax(axis=1)
        found = likeness[np.arange(len(held)), best]
        better = ~(found <= cosines)
        cosines[better], rows[better] = found[better], np.asarray(places)[best[better]]
    return cosines, rows


def _unit_length(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
