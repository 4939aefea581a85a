"""A softmax policy over token sequences so few that all can be listed, with the gradient of every log-prob."""

from __future__ import annotations

from itertools import product

import numpy as np

from alignment.tabular.games import Array, normalised

END = 0  # the token that ends a sequence


class Sequences:
    """All sequences over `vocabulary` tokens that end with END or, cut, after `length` tokens; and all their prefixes.

    tokens: (S, length) ints, -1 behind the end.
    prefixes: (S, length) ints: the number of the prefix from which each token is drawn, -1 behind the end.
    contexts: the number of prefixes; a policy has one row of `vocabulary` logits for each.
    """

    def __init__(self, vocabulary: int, length: int) -> None:
        self.vocabulary, self.length = vocabulary, length
        whole = [c for n in range(length) for c in product(range(1, vocabulary), repeat=n)]  # may go on
        number = {prefix: at for at, prefix in enumerate(whole)}
        self.contexts = len(whole)
        cut = product(range(1, vocabulary), repeat=length)
        found = sorted([(*prefix, END) for prefix in whole] + list(cut))
        self.tokens = np.full((len(found), length), -1)
        self.prefixes = np.full((len(found), length), -1)
        for s, sequence in enumerate(found):
            self.tokens[s, : len(sequence)] = sequence
            self.prefixes[s, : len(sequence)] = [number[sequence[:t]] for t in range(len(sequence))]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def real(self) -> Array:
        """(S, length) bool: where there is a token."""
        return self.tokens >= 0


class Policy:
    """Logits (contexts, vocabulary) over `sequences`. S sequences of T tokens; D = contexts * vocabulary parameters."""

    def __init__(self, sequences: Sequences, logits: Array) -> None:
        self.sequences, self.logits = sequences, logits

    @classmethod
    def random(cls, sequences: Sequences, rng: np.random.Generator, scale: float = 1.0) -> Policy:
        return cls(sequences, scale * rng.normal(size=(sequences.contexts, sequences.vocabulary)))

    @classmethod
    def of_sequence_logps(cls, sequences: Sequences, logps: Array) -> Policy:
        """The policy with these log-probs (S,) of whole sequences: each token's is that of what can follow it."""
        logits = np.full((sequences.contexts, sequences.vocabulary), -np.inf)
        for sequence, prefixes, real, logp in zip(
            sequences.tokens, sequences.prefixes, sequences.real, logps, strict=True
        ):
            for token, prefix in zip(sequence[real], prefixes[real], strict=True):
                logits[prefix, token] = np.logaddexp(logits[prefix, token], logp)
        return cls(sequences, normalised(logits))

    @property
    def token_logps(self) -> Array:
        """(S, T): log-prob of each token, 0 behind the end."""
        logps = normalised(self.logits)[self.sequences.prefixes, self.sequences.tokens]
        return np.where(self.sequences.real, logps, 0.0)

    @property
    def logps(self) -> Array:
        """(S,): log-prob of each sequence."""
        return self.token_logps.sum(1)

    @property
    def token_scores(self) -> Array:
        """(S, T, D): gradient of each token's log-prob, at its prefix one-hot minus probabilities."""
        known = self.sequences
        probabilities = np.exp(normalised(self.logits))
        scores = np.zeros((len(known), known.length, known.contexts, known.vocabulary))
        for s, t in zip(*np.nonzero(known.real), strict=True):
            prefix = known.prefixes[s, t]
            scores[s, t, prefix] = -probabilities[prefix]
            scores[s, t, prefix, known.tokens[s, t]] += 1
        return scores.reshape(len(known), known.length, -1)

    @property
    def scores(self) -> Array:
        """(S, D): gradient of each sequence's log-prob."""
        return self.token_scores.sum(1)

    def mixed(self, other: Policy, share: float) -> Policy:
        """The mixture that can be sampled, one token at a time: softmax of (1 - share) own + share other log-probs.

        It is not the geometric mixture of whole sequences (`games.mix`): each prefix has its own normaliser.
        """
        return Policy(self.sequences, (1 - share) * normalised(self.logits) + share * normalised(other.logits))
