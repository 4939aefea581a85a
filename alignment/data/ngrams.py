"""Which n-grams of some texts occur in others: the first are held, the others stream by in batches.

An n-gram is hashed to 64 bits as sum_j v(w_j) B^j, v a fixed random number of each word of the held texts; what holds
any other word can occur in none of them and is not looked at. Two different n-grams share a hash with a chance of about
2^-64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np

from alignment.data.overlap_texts import words

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing modulo 2^64
KEPT_ROWS = 8  # streamed rows that are remembered for an n-gram, of each side


class NgramIndex:
    """n-grams of held texts, and where streamed texts have them. A *side* is what kind of text it is (prompt, answer).

    Args:
        texts: the held ones, each as its words.
        n: words of an n-gram. A shorter text has one gram, its whole, and only a whole text can match it.
        sides: how many kinds of streamed text there are.

    Attributes:
        grams: of each held text, the places of its distinct n-grams in `counts`, int64.
        counts: (U, sides), how many streamed rows have the n-gram.
    """

    def __init__(self, texts: Sequence[Sequence[str]], n: int, sides: int = 2) -> None:
        self.n, self.sides = n, sides
        self.vocabulary: dict[str, int] = {}
        coded = [self._learn(text) for text in texts]
        values = np.random.default_rng(n).integers(1, 2**64, size=len(self.vocabulary) + 1, dtype=np.uint64)
        values[0] = 0
        self._values = values
        hashes = [np.unique(self._hashes(ids)) for ids in coded]
        self._known = np.unique(np.concatenate(hashes)) if hashes else np.empty(0, dtype=np.uint64)
        self.grams = [np.searchsorted(self._known, found) for found in hashes]
        self.counts = np.zeros((len(self._known), sides), dtype=np.int64)
        self._rows = np.full((len(self._known) * sides, KEPT_ROWS), -1, dtype=np.int32)

    def _learn(self, text: Sequence[str]) -> np.ndarray:
        """The text's words as numbers from 1."""
        number = self.vocabulary.setdefault
        return np.array([number(word, len(self.vocabulary) + 1) for word in text], dtype=np.int64)

    def add(self, texts: Iterable[tuple[int, int, str]]) -> None:
        """Stream a batch of (row, side, text). All texts of one row must be in one batch: a row counts once."""
        found: list[str] = []
        ends, places = [], []
        for row, side, text in texts:
            found += words(text)
            found.append("")  # no word: no n-gram reaches over the end
            ends.append(len(found))
            places.append((row, side))
        if not places or not len(self._known):
            return
        ids = np.fromiter(map(self.vocabulary.get, found, repeat(0)), dtype=np.int64, count=len(found))
        at, hashes = self._matches(ids, np.array(ends))
        grams = np.searchsorted(self._known, hashes).clip(max=len(self._known) - 1)
        hit = self._known[grams] == hashes
        rows, sides = np.array(places).T[:, np.searchsorted(np.array(ends), at[hit], side="right")]
        self._count(grams[hit] * self.sides + sides, rows)

    def rows(self, gram: int, side: int) -> list[int]:
        """The first streamed rows that have the n-gram, at most KEPT_ROWS."""
        return [row for row in self._rows[gram * self.sides + side].tolist() if row >= 0]

    def _hashes(self, ids: np.ndarray) -> np.ndarray:
        """Hashes of the n-grams of one text, uint64; of a shorter one, that of its whole."""
        length = min(self.n, len(ids))
        starts = np.arange(len(ids) - length + 1) if length else np.empty(0, dtype=np.int64)
        return self._rolling(self._values[ids], starts, length)

    def _rolling(self, values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Hashes of the `length` words from each start. Below n words the length is in it: it is no n-gram's."""
        total, power = np.full(len(starts), self.n - length, dtype=np.uint64), _BASE
        with np.errstate(over="ignore"):
            total *= ~_BASE
            for step in range(length):
                total += values[starts + step] * power
                power *= _BASE
        return total

    def _matches(self, ids: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(where they begin, hashes) of all n-grams of known words, and of whole short texts."""
        unknown = np.concatenate([[0], np.cumsum(ids == 0)])
        first = np.concatenate([[0], ends[:-1]])
        lengths = np.where(unknown[ends - 1] == unknown[first], ends - 1 - first, 0)  # of texts of known words
        starts = [np.arange(max(0, len(ids) - self.n + 1))]
        starts[0] = starts[0][unknown[starts[0] + self.n] == unknown[starts[0]]]
        starts += [first[lengths == length] for length in range(1, self.n)]
        values = self._values[ids]
        hashes = [
            self._rolling(values, at, length) for at, length in zip(starts, [self.n, *range(1, self.n)], strict=True)
        ]
        return np.concatenate(starts), np.concatenate(hashes)

    def _count(self, grams: np.ndarray, rows: np.ndarray) -> None:
        """Count each (n-gram and side, row) once, and remember the first rows."""
        pairs = np.unique(np.stack([grams, rows], axis=1), axis=0)
        grams, rows = pairs[:, 0], pairs[:, 1]
        which, first, many = np.unique(grams, return_index=True, return_counts=True)
        counts = self.counts.reshape(-1)
        slot = counts[grams] + np.arange(len(grams)) - np.repeat(first, many)
        kept = slot < KEPT_ROWS
        self._rows[grams[kept], slot[kept]] = rows[kept]
        counts[which] += many
