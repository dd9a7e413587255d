"""Synthetic rows that train and test retrieval: lines with keys and values, Markov text, and repeats.

A vocabulary has marks, keys, values and text symbols, one token each. Three kinds of rows share it:

- lines: `LINE key value` at random places among filler tokens, then questions `ASK key value` at the end. The answer
  to a question is the value of the line with its key, as in LongChat-Lines.
- text: a Markov chain of second order over the symbols, whose entropy and so whose lowest perplexity are known.
- repeats: random tokens that repeat after a random period. They make the circuit emerge that looks up earlier tokens.

All generators return whole batches: int64 tokens [rows, length], and the weight of each token in the loss. The weights
of a row sum to 1. In text and repeats, tokens that cannot be predicted weigh nothing. In lines, all tokens after the
first count, and the answers have half of the weight.
"""

from dataclasses import dataclass

import numpy as np

LINE, ASK, FILLER = range(3)
MARKS = 3
LINE_TOKENS = 3  # LINE key value, and ASK key value
# Probabilities of the successors: two that the last symbol determines, and two that the symbol before it determines.
# The second order needs attention to the previous token, which the lookup of a line needs too.
SUCCESSORS = np.array([0.4, 0.1, 0.4, 0.1])


@dataclass(frozen=True)
class Vocabulary:
    """Numbers of keys, values and text symbols. Tokens are numbered in the order marks, keys, values, symbols."""

    keys: int = 64
    values: int = 32
    symbols: int = 64

    @property
    def first_value(self):
        return MARKS + self.keys

    @property
    def first_symbol(self):
        return self.first_value + self.values

    @property
    def size(self):
        return self.first_symbol + self.symbols


class Generator:
    """Makes rows from a seed.

    The language, the transition table of the Markov chain, depends on `language` alone, so that the rows of training
    and evaluation have one language.
    """

    def __init__(self, vocabulary, seed, language):
        self.vocabulary = vocabulary
        self.random = np.random.default_rng(seed)
        # Permutations of shifted symbols, so that all symbols are equally frequent in the long run.
        symbols, of_language = vocabulary.symbols, np.random.default_rng(language)
        shifted = (np.arange(symbols)[:, None] + np.arange(2)) % symbols
        self.successors = [of_language.permutation(symbols)[shifted] for _ in range(2)]

    def text(self, rows, length):
        """Markov text. All tokens but the first count alike."""
        drawn = self.random.random((length, rows))
        choices = np.searchsorted(np.cumsum(SUCCESSORS)[:-1], drawn, side="right")
        of_last, chosen = choices < 2, choices % 2
        symbols = np.empty((length, rows), np.int64)
        last, before = self.random.integers(self.vocabulary.symbols, size=(2, rows))
        first, second = self.successors
        for t in range(length):
            symbols[t] = np.where(of_last[t], first[last, chosen[t]], second[before, chosen[t]])
            last, before = symbols[t], last
        tokens = np.ascontiguousarray(symbols.T) + self.vocabulary.first_symbol
        return tokens, normalized(np.broadcast_to(np.arange(length) >= 1, tokens.shape))

    def entropy(self):
        """The entropy of the text, nats per token. Its exponential is the lowest perplexity."""
        n = self.vocabulary.symbols
        # Probabilities of the next symbol after each pair: [before, last, next].
        after = np.zeros((n, n, n))
        each = np.arange(n)
        for i in range(2):
            after[:, each, self.successors[0][:, i]] += SUCCESSORS[i]
            after[each, :, self.successors[1][:, i]] += SUCCESSORS[2 + i]
        pairs = np.full((n, n), 1 / n**2)
        for _ in range(50):
            pairs = np.einsum("bl,bln->ln", pairs, after)
        return float(-(pairs[..., None] * after * np.log(np.where(after > 0, after, 1))).sum())

    def repeats(self, rows, length):
        """Random keys, values and symbols with a random period per row. The first period does not count."""
        drawn = self.random.integers(MARKS, self.vocabulary.size, size=(rows, length))
        period = self.random.integers(4, max(length // 2, 5), size=(rows, 1))
        t = np.arange(length)
        tokens = np.take_along_axis(drawn, t % period, axis=1)
        return tokens, normalized(t >= period)

    def lines(self, rows, length, lines, questions):
        """Lines among filler tokens, then questions for different lines. The answers have half of the weight.

        Returns (tokens, weight, distance): distance [rows, questions] counts the tokens from the asked value to
        the end of the context, where the questions start.
        """
        context = context_tokens(length, questions)
        if not 0 < questions <= lines <= self.vocabulary.keys or lines * LINE_TOKENS > context:
            raise ValueError(
                f"{lines} lines and {questions} questions do not fit into {length} tokens with {self.vocabulary.keys} "
                f"keys; expected 0 < questions <= lines <= keys, and {LINE_TOKENS} tokens per line and question"
            )
        tokens = np.full((rows, length), FILLER)
        # A line counts as one unit when the places are drawn, so that lines do not overlap.
        units = context - (LINE_TOKENS - 1) * lines
        places = np.sort(self._distinct(rows, units, lines), axis=1)
        starts = places + (LINE_TOKENS - 1) * np.arange(lines)
        keys = MARKS + self._distinct(rows, self.vocabulary.keys, lines)
        values = self.vocabulary.first_value + self.random.integers(self.vocabulary.values, size=keys.shape)
        each = np.arange(rows)[:, None]
        for i, token in enumerate((LINE, keys, values)):
            tokens[each, starts + i] = token
        asked = self._distinct(rows, lines, questions)
        ends = context + LINE_TOKENS * np.arange(questions)
        for i, token in enumerate((ASK, keys[each, asked], values[each, asked])):
            tokens[:, ends + i] = token
        weight = np.full(tokens.shape, 0.5 / (length - 1 - questions))
        weight[:, 0] = 0
        weight[:, answer_places(length, questions)] = 0.5 / questions
        return tokens, weight, context - (starts[each, asked] + 2)

    def _distinct(self, rows, limit, count):
        """Distinct random numbers below limit, [rows, count]."""
        return self.random.random((rows, limit)).argsort(axis=1)[:, :count]

    def mixture(self, rows, length, shares, most_lines):
        """A batch for training, with the shares of (lines, text, repeats) and a random number of lines per row.

        Returns (tokens, weight, (n, places)): the first n rows have answers, at these places.
        """
        of_lines, of_text = (round(share * rows) for share in shares[:2])
        questions = min(8, length // 16)
        room = context_tokens(length, questions) // (LINE_TOKENS + 1)
        lines = int(self.random.integers(questions, max(questions + 1, min(most_lines, room) + 1)))
        parts = (
            self.lines(of_lines, length, lines, questions)[:2],
            self.text(of_text, length),
            self.repeats(rows - of_lines - of_text, length),
        )
        tokens, weight = (np.concatenate(arrays) for arrays in zip(*parts))
        return tokens, weight.astype(np.float32), (of_lines, answer_places(length, questions))


def context_tokens(length, questions):
    """Tokens before the questions."""
    return length - LINE_TOKENS * questions


def answer_places(length, questions):
    """Indices of the answers in a row of lines."""
    return context_tokens(length, questions) + LINE_TOKENS * np.arange(questions) + LINE_TOKENS - 1


def normalized(mask):
    return mask / mask.sum(axis=1, keepdims=True)
