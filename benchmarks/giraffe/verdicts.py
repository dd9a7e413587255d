"""Conclusions of the Giraffe paper, each with a rule that judges the figures of the lab.

A rule reads the results of one seed and returns True (it holds), False (the opposite holds) or None (the difference is
within the margin), with the figures that it compared. The verdict combines the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Callable

# Two seeds are to agree within this difference of accuracy. A smaller difference between methods decides nothing.
MARGIN = 0.06
LINEAR = ("linear 4", "linear 16")


class Figures:
    """Results of one seed by method, ratio and multiple of the pretrained length."""

    def __init__(self, result):
        self.result = result
        self.methods = {method["method"]: method for method in result["methods"]}
        self.rows = {
            (name, row["ratio"], row["multiple"]): row
            for name, method in self.methods.items()
            for row in method["rows"]
        }
        self.multiples = sorted({multiple for _, _, multiple in self.rows})
        self.ratios = sorted({ratio for _, ratio, _ in self.rows})

    def row(self, name, multiple, ratio=None):
        return self.rows[name, self.methods[name]["ratio"] if ratio is None else ratio, multiple]

    def accuracy(self, name, multiple, ratio=None):
        return self.row(name, multiple, ratio)["accuracy"]

    def of_paper(self):
        return [name for name, method in self.methods.items() if method["paper"]]

    def extension(self, name, ratio=None):
        """Mean accuracy at the lengths beyond those of fine-tuning."""
        beyond = [multiple for multiple in self.multiples if multiple > 2]
        return sum(self.accuracy(name, multiple, ratio) for multiple in beyond) / len(beyond)

    def best_extension(self, name):
        """The same at the best scale of evaluation."""
        ratios = {ratio for method, ratio, _ in self.rows if method == name}
        return max(self.extension(name, ratio) for ratio in ratios)

    def reach(self, name, ratio):
        """The longest multiple with an accuracy of one half, interpolated over the logarithm of the length, or 0."""
        accuracies = [self.accuracy(name, multiple, ratio) for multiple in self.multiples]
        last = max((i for i, accuracy in enumerate(accuracies) if accuracy >= 0.5), default=None)
        if last is None:
            return 0.0
        if last + 1 == len(accuracies):
            return float(self.multiples[-1])
        part = (accuracies[last] - 0.5) / (accuracies[last] - accuracies[last + 1])
        return self.multiples[last] * (self.multiples[last + 1] / self.multiples[last]) ** part


@dataclass(frozen=True)
class Conclusion:
    """A conclusion of the paper: the claim, the paper's figures, and the rule in words and in code."""

    claim: str
    paper: str
    rule: str
    judge: Callable[[Figures], tuple[bool | None, str]]


def decide(difference):
    return None if abs(difference) <= MARGIN else difference > 0


def linear_is_best(figures):
    holds, text = linear_leads({name: figures.extension(name) for name in figures.of_paper()})
    kept = (f"{name} {short(figures.accuracy(name, figures.multiples[0]))}" for name in ("linear 16", "randomized"))
    return holds, f"{text}; at 1x {', '.join(kept)}"


def linear_is_best_at_any_scale(figures):
    return linear_leads({name: figures.best_extension(name) for name in figures.of_paper()})


def linear_leads(scores):
    ranked = sorted(scores, key=scores.get, reverse=True)
    linear = next(name for name in ranked if name in LINEAR)
    other = next(name for name in ranked if name not in LINEAR)
    return decide(scores[linear] - scores[other]), f"{linear} {short(scores[linear])}, {other} {short(scores[other])}"


def accuracy_falls(figures):
    last = figures.multiples[-1]
    best = {name: max(figures.accuracy(name, multiple) for multiple in figures.multiples) for name in figures.methods}
    # Without retrieval there is nothing to lose.
    losses = {name: best[name] - figures.accuracy(name, last) for name in best if best[name] >= 0.5}
    of_paper = [name for name in losses if figures.methods[name]["paper"]]
    if not of_paper:
        return None, "no method of the paper retrieves"
    least = min(of_paper, key=losses.get)
    text = f"smallest loss of the paper's methods: {least}, {short(losses[least])}"
    kept = [name for name in losses if not figures.methods[name]["paper"] and losses[name] <= MARGIN]
    return decide(losses[least]), text + (f"; no loss up to {last}x: {', '.join(kept)}" if kept else "")


def scale_extends_reach(figures):
    reaches = {ratio: figures.reach("linear 4", ratio) for ratio in (1, 2)}
    return reaches[2] >= 1.5 * reaches[1] > 0, f"reach {reaches[1]:.1f} at scale 4, {reaches[2]:.1f} at scale 8"


def scale_has_a_limit(figures):
    reaches = {ratio: figures.reach("linear 4", ratio) for ratio in figures.ratios}
    text = ", ".join(f"{reaches[n]:.1f} and {short(figures.accuracy('linear 4', 1, n))} at {4 * n}" for n in reaches)
    return max(reaches.values()) < 1.25 * reaches[2], f"reach, and accuracy at 1x, by scale: {text}"


def truncation_extrapolates(figures):
    gains = [figures.accuracy("truncated", n) - figures.accuracy("plain", n) for n in (4, 8)]
    pairs = [
        f"{short(figures.accuracy(name, 4))}, {short(figures.accuracy(name, 8))}" for name in ("truncated", "plain")
    ]
    return decide(min(gains)), f"at 4x and 8x: truncated {pairs[0]}; plain {pairs[1]}"


def perplexity_misranks(figures):
    last = figures.multiples[-1]
    rows = {name: figures.row(name, last) for name in figures.methods}
    compared = [pair for pair in combinations(rows, 2) if decided(rows, *pair)]
    if not compared:
        return None, "no pair of methods differs"
    wrong = [pair for pair in compared if misranked(rows, *pair)]
    if not wrong:
        return False, f"0 of {len(compared)} pairs"
    worst = max(wrong, key=lambda pair: abs(rows[pair[0]]["accuracy"] - rows[pair[1]]["accuracy"]))
    cells = [f"{name} {short(rows[name]['accuracy'])} at perplexity {rows[name]['perplexity']:.2f}" for name in worst]
    return len(wrong) >= len(compared) / 4, f"{len(wrong)} of {len(compared)} pairs, such as {' and '.join(cells)}"


def decided(rows, a, b):
    return abs(rows[a]["accuracy"] - rows[b]["accuracy"]) > MARGIN


def misranked(rows, a, b):
    accuracy, perplexity = (rows[a][key] - rows[b][key] for key in ("accuracy", "perplexity"))
    return accuracy * perplexity > 0


def interleaved_destroys(figures):
    return interleaved_halves(figures, "none", "none, interleaved")


def interleaved_stays_broken(figures):
    return interleaved_halves(figures, "xPos", "xPos, interleaved")


def interleaved_halves(figures, *names):
    rows = [figures.row(name, figures.multiples[0]) for name in names]
    cells = (f"{short(row['accuracy'])} at perplexity {row['perplexity']:.2f}" for row in rows)
    holds = rows[1]["accuracy"] < 0.5 * rows[0]["accuracy"]
    return holds, "at 1x " + ", ".join(f"{name} {cell}" for name, cell in zip(names, cells))


CONCLUSIONS = (
    Conclusion(
        "Linear scaling is the best of the paper's methods.",
        "LongChat-Lines at 14k tokens: linear 16 .12, all others 0. WikiQA at 15,000: linear 16 .68 and .48, others 0.",
        "Mean accuracy at the lengths beyond fine-tuning: the better of linear 4 and 16 against the best other method "
        f"of the paper, with the policies of the first table. A difference up to {MARGIN} decides nothing.",
        linear_is_best,
    ),
    Conclusion(
        "The same, with each method at its best scale of evaluation.",
        "Only linear 4, evaluated at 8, and randomized, evaluated at 4, changed the scale.",
        "The rule above, with the highest mean of each method over the scales of evaluation.",
        linear_is_best_at_any_scale,
    ),
    Conclusion(
        "Every method loses accuracy with length.",
        "LongChat-Lines, 2.5k to 20k tokens: linear 16 falls from .64 to 0, linear 4 from .70 to 0 at 9.4k.",
        f"Every method of the paper loses more than {MARGIN} between its best length and the longest one. Methods that "
        "retrieve at no length do not count.",
        accuracy_falls,
    ),
    Conclusion(
        "A larger scale at evaluation than in fine-tuning extends the reach.",
        "Fine-tuned at 4: 0 at 9.4k tokens. Evaluated at 8: .32 at 9.4k, .12 at 16k.",
        "Reach of linear 4: the longest multiple of the pretrained length at which accuracy is at least .5. Evaluation "
        "at twice the scale extends it at least 1.5 times.",
        scale_extends_reach,
    ),
    Conclusion(
        "It does so up to about 2 times the scale.",
        "No figures: the paper says up to about 2 times.",
        "Evaluation at 3 and 4 times the scale has a reach less than 1.25 times that at twice the scale.",
        scale_has_a_limit,
    ),
    Conclusion(
        "The truncated basis extrapolates without scaling.",
        "AltQA: .74 at 2,000, .46 at 7,500, 0 at 15,000. LongChat-Lines: .42 at 2.5k, .14 at 4.8k, .04 at 7.1k.",
        f"Truncated beats plain fine-tuning by more than {MARGIN} at 4x and at 8x, both unscaled.",
        truncation_extrapolates,
    ),
    Conclusion(
        "Perplexity does not rank retrieval.",
        "Final loss: truncated 1.747, linear 16 1.795. AltQA at 15,000: truncated 0, linear 16 .68.",
        f"Pairs of methods whose accuracies at the longest length differ by more than {MARGIN}: perplexity prefers the "
        "worse one in at least a quarter.",
        perplexity_misranks,
    ),
    Conclusion(
        "Interleaved rotation of half-split weights destroys retrieval. This would explain why xPos did not converge.",
        "Final loss of xPos 1.85, the worst. Its rotation was interleaved, and the weights of Llama are half-split.",
        "Without fine-tuning, the interleaved layout has less than half of the accuracy of half-split at 1x.",
        interleaved_destroys,
    ),
    Conclusion(
        "Fine-tuning does not repair it.",
        "No xPos in the half-split layout to compare with.",
        "After fine-tuning, interleaved xPos has less than half of the accuracy of half-split xPos at 1x.",
        interleaved_stays_broken,
    ),
)


def verdict(conclusion, every):
    """(verdict, figures of each seed) for a list of Figures."""
    judged = [conclusion.judge(figures) for figures in every]
    outcomes = {outcome for outcome, _ in judged}
    words = {True: "reproduced", False: "not reproduced", None: "undecided, within the margin"}
    return words[outcomes.pop()] if len(outcomes) == 1 else "differs between seeds", [text for _, text in judged]


def disagreements(every):
    """(cells, [(method, multiple, accuracies)]) of the cells whose seeds differ by more than the margin."""
    cells = [(name, multiple) for name in every[0].methods for multiple in every[0].multiples]
    found = []
    for name, multiple in cells:
        accuracies = [figures.accuracy(name, multiple) for figures in every]
        if max(accuracies) - min(accuracies) > MARGIN + 1e-9:
            found.append((name, multiple, accuracies))
    return len(cells), found


def short(accuracy):
    """Two decimals without the leading zero."""
    return f"{accuracy:.2f}".replace("0.", ".", 1) if accuracy < 0.995 else "1.00"
