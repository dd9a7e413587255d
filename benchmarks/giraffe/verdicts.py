"""Conclusions of the Giraffe paper, each with a rule that judges the figures of the lab.

A rule reads the results of one seed and returns True (it holds), False (the opposite holds) or None (the difference is
within the margin), with the figures that it compared. The verdict combines the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Callable

# A fixed margin of accuracy: a smaller difference between methods decides nothing.
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

    def extension(self, name, ratio=None, read=None):
        """Mean accuracy at the lengths beyond those of fine-tuning, by default over all questions."""
        rows = [self.row(name, multiple, ratio) for multiple in self.multiples if multiple > 2]
        return sum(map(read or all_questions, rows)) / len(rows)

    def best_extension(self, name):
        """The same at the best scale of evaluation: (mean, ratio)."""
        ratios = {ratio for method, ratio, _ in self.rows if method == name}
        return max((self.extension(name, ratio), ratio) for ratio in ratios)

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


def all_questions(row):
    return row["accuracy"]


def far_quarter(row):
    """Accuracy of the questions for lines in the quarter of the context that is farthest from the questions."""
    return row["quarters"][3]


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
    holds, text = linear_leads({name: (figures.extension(name), "") for name in figures.of_paper()})
    kept = (f"{name} {short(figures.accuracy(name, figures.multiples[0]))}" for name in ("linear 16", "randomized"))
    return holds, f"{text}; at 1x {', '.join(kept)}"


def linear_is_best_far_away(figures):
    return linear_leads({name: (figures.extension(name, read=far_quarter), "") for name in figures.of_paper()})


def linear_is_best_at_any_scale(figures):
    return linear_leads(best_scales(figures))


def linear_is_best_with_equal_steps(figures):
    steps = figures.methods["linear 4"]["training"]["steps"]
    scores = best_scales(figures)
    return linear_leads({name: scores[name] for name in scores if figures.methods[name]["training"]["steps"] == steps})


def best_scales(figures):
    """{method of the paper: (mean accuracy at its best scale, the scale in words)}."""
    found = {}
    for name in figures.of_paper():
        score, ratio = figures.best_extension(name)
        largest = " (the largest)" if ratio == figures.ratios[-1] else ""
        found[name] = score, f" at {ratio} times its scale{largest}"
    return found


def linear_leads(scores):
    """Compare the best linear method with the best other one: {method: (score, remark)}."""
    ranked = sorted(scores, key=scores.get, reverse=True)
    pair = [next(name for name in ranked if (name in LINEAR) == linear) for linear in (True, False)]
    text = ", ".join(f"{name} {short(scores[name][0], 3)}{scores[name][1]}" for name in pair)
    return decide(scores[pair[0]][0] - scores[pair[1]][0]), text


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
    scales = ", ".join(str(4 * ratio) for ratio in reaches)
    reached = ", ".join(f"{reach:.1f}" for reach in reaches.values())
    kept = ", ".join(short(figures.accuracy("linear 4", 1, ratio)) for ratio in reaches)
    text = f"scales {scales}: reach {reached}, accuracy at 1x {kept}"
    return max(reaches.values()) < 1.25 * reaches[2], text


def truncation_extrapolates(figures):
    gains = [figures.accuracy("truncated", n) - figures.accuracy("plain", n) for n in (4, 8)]
    pairs = [
        f"{short(figures.accuracy(name, 4))}, {short(figures.accuracy(name, 8))}" for name in ("truncated", "plain")
    ]
    return decide(min(gains)), f"at 4x and 8x: truncated {pairs[0]}; plain {pairs[1]}"


def perplexity_misranks(figures):
    last = figures.multiples[-1]
    rows = {name: figures.row(name, last) for name in figures.methods}
    shares, counts = [], []
    for read in (all_questions, far_quarter):
        compared = [pair for pair in combinations(rows, 2) if abs(difference(rows, pair, read)) > MARGIN]
        wrong = [pair for pair in compared if misranked(rows, pair, read)]
        counts.append(f"{len(wrong)} of {len(compared)} pairs")
        shares.append(len(wrong) / len(compared) if compared else None)
    text = f"{counts[0]}; in the far quarter {counts[1]}"
    if None in shares:
        return None, text
    if wrong:
        worst = max(wrong, key=lambda pair: abs(difference(rows, pair, far_quarter)))
        cells = (
            f"{name} {short(far_quarter(rows[name]))} at perplexity {rows[name]['perplexity']:.2f}" for name in worst
        )
        text += f", such as {' and '.join(cells)}"
    return min(shares) >= 0.25, text


def difference(rows, pair, read):
    return read(rows[pair[0]]) - read(rows[pair[1]])


def misranked(rows, pair, read):
    return difference(rows, pair, read) * difference(rows, pair, lambda row: row["perplexity"]) > 0


def interleaved_destroys(figures):
    (plain, interleaved), text = interleaved_cells(figures, "none")
    return interleaved < 0.5 * plain, text


def interleaved_stays_broken(figures):
    (half_split, interleaved), text = interleaved_cells(figures, "xPos")
    losses = (short(figures.methods[name]["training"]["loss"]) for name in ("xPos", "xPos, interleaved"))
    return half_split - interleaved > MARGIN, f"{text}; final training loss {' and '.join(losses)}"


def interleaved_cells(figures, name):
    """Accuracies at 1x of both layouts, and a text with the perplexities."""
    names = (name, f"{name}, interleaved")
    rows = [figures.row(each, figures.multiples[0]) for each in names]
    cells = (f"{each} {short(row['accuracy'])} at perplexity {row['perplexity']:.2f}" for each, row in zip(names, rows))
    return [row["accuracy"] for row in rows], f"at 1x {' and '.join(cells)}"


CONCLUSIONS = (
    Conclusion(
        "Linear scaling is the best of the paper's methods, over all questions.",
        "At the scale of fine-tuning (randomized: at 4). LongChat-Lines at 14k tokens: linear 16 .12, the others 0. "
        "At 15,000 tokens: linear 16 AltQA .68 and FFQA .48, linear 4 and truncated 0.",
        "Mean accuracy at the lengths beyond fine-tuning, over all questions, with the policies of the first table: "
        "the better of linear 4 and 16 against the best other method of the paper. A difference up to "
        f"{MARGIN} decides nothing.",
        linear_is_best,
    ),
    Conclusion(
        "The same, in the far quarter of the context.",
        "Not measured by distance.",
        "Rule 1, over the questions of the far quarter.",
        linear_is_best_far_away,
    ),
    Conclusion(
        "The same over all questions, with each method at its best scale of evaluation. Linear 16 has 4 times the "
        "steps.",
        "Only linear 4, evaluated at 8, and randomized, evaluated at 4, changed the scale.",
        "Rule 1, with the highest mean of each method over the scales of evaluation, in multiples of the scale of "
        "fine-tuning. The best scale is chosen on the tested rows. Where it is the largest measured one, a larger "
        "scale can be better.",
        linear_is_best_at_any_scale,
    ),
    Conclusion(
        "The same over all questions, at the best scales, with equal steps.",
        "No comparison with equal steps and several scales.",
        "Rule 3, for the methods with as many steps as linear 4: without linear 16.",
        linear_is_best_with_equal_steps,
    ),
    Conclusion(
        "Every method loses accuracy with length.",
        "At the scale of fine-tuning, LongChat-Lines: linear 16 falls from .64 at 2.5k tokens to 0 at 17.5k, linear 4 "
        "from .70 at 2.5k to 0 at 9.4k.",
        f"Every method of the paper loses more than {MARGIN} between its best length and the longest one. Methods that "
        "retrieve at no length do not count.",
        accuracy_falls,
    ),
    Conclusion(
        "A larger scale at evaluation than in fine-tuning extends the reach.",
        "LongChat-Lines, fine-tuned at 4. Evaluated at 4: 0 at 9.4k tokens. Evaluated at 8, with instruction tuning: "
        ".32 at 9.4k, .12 at 16k.",
        "Reach of linear 4: the longest multiple of the pretrained length at which accuracy is at least .5, "
        "interpolated over the logarithm of the length. A reach of 16 means 16 or more. Evaluation at twice the scale "
        "extends it at least 1.5 times.",
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
        "AltQA: .74 at 2,000 tokens, .46 at 7,500, 0 at 15,000. LongChat-Lines: .42 at 2.5k, .14 at 4.8k, .04 at 7.1k.",
        f"Truncated beats plain fine-tuning by more than {MARGIN} at 4x and at 8x, both unscaled.",
        truncation_extrapolates,
    ),
    Conclusion(
        "Perplexity does not rank retrieval.",
        "Final loss: truncated 1.747, linear 16 1.795. AltQA at 15,000 tokens: truncated 0, linear 16 .68.",
        f"Pairs of methods whose accuracies at the longest length differ by more than {MARGIN}: perplexity prefers the "
        "worse one in at least a quarter, over all questions and in the far quarter. A coin would do so in half of the "
        "pairs.",
        perplexity_misranks,
    ),
    Conclusion(
        "Interleaved rotation of half-split weights destroys retrieval.",
        "Not measured. xPos had interleaved rotation, and the worst final loss, 1.85.",
        "Without fine-tuning, the interleaved layout has less than half of the accuracy of half-split at 1x.",
        interleaved_destroys,
    ),
    Conclusion(
        "Fine-tuning does not repair it.",
        "No xPos in the half-split layout to compare with.",
        f"After fine-tuning, interleaved xPos is more than {MARGIN} below half-split xPos at 1x.",
        interleaved_stays_broken,
    ),
)


def verdict(conclusion, every):
    """(verdict, figures of each seed) for a list of Figures."""
    words = {True: "reproduced", False: "not reproduced", None: "undecided"}
    judged = [conclusion.judge(figures) for figures in every]
    outcomes = [words[outcome] for outcome, _ in judged]
    combined = outcomes[0] if len({*outcomes}) == 1 else f"differs between seeds ({' / '.join(outcomes)})"
    return combined, [text for _, text in judged]


def disagreements(every, beyond=0):
    """(cells, [(method, multiple, accuracies)]) of the cells whose seeds differ by more than the margin.

    Cells up to `beyond` times the pretrained length do not count.
    """
    multiples = [multiple for multiple in every[0].multiples if multiple > beyond]
    cells = [(name, multiple) for name in every[0].methods for multiple in multiples]
    found = []
    for name, multiple in cells:
        accuracies = [figures.accuracy(name, multiple) for figures in every]
        if max(accuracies) - min(accuracies) > MARGIN + 1e-9:
            found.append((name, multiple, accuracies))
    return len(cells), found


def short(accuracy, digits=2):
    """Decimals without the leading zero."""
    text = f"{accuracy:.{digits}f}"
    return text[1:] if text.startswith("0") else text
