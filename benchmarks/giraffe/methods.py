"""Methods that the lab compares: policies of ropewalk, and the scales at which a fine-tuned model is evaluated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to extend the context.

    Args:
        name: Label in tables and plots.
        policy: The expression of the encoding. A pair of braces stands for the factor.
        factor: The factor during fine-tuning.
        training: The expression during fine-tuning, if it is not that of the evaluation at ratio 1.
        layout: Layout of the pairs. The model is pretrained in half_split.
        steps: Fine-tuning steps as a multiple of the default. 0 is no fine-tuning.
        ratio: The ratio that the tables show: scale at evaluation divided by scale in fine-tuning.
        paper: Whether the paper compares the method.
    """

    name: str
    policy: str
    factor: float = 1
    training: str | None = None
    layout: str = "half_split"
    steps: int = 1
    ratio: int = 1
    paper: bool = False

    def expression(self, ratio=1):
        """The policy at a scale of `ratio` times the fine-tuned one.

        A method without a factor is combined with linear scaling, which applies first, as in the paper's code.
        """
        if "{}" in self.policy:
            return self.policy.format(f"{self.factor * ratio:g}")
        parts = [f"linear:{ratio}"] * (ratio != 1) + [self.policy] * (self.policy != "default")
        return "|".join(parts) or "default"


def methods(length):
    """All methods for a model that is pretrained on `length` tokens, in the order of the tables."""
    return (
        Method("none", "default", steps=0),
        Method("none, interleaved", "default", layout="interleaved", steps=0),
        Method("plain", "default"),
        Method("linear 4", "linear:{}", 4, paper=True),
        Method("linear 16", "linear:{}", 16, steps=4, paper=True),
        Method("power 0.5", "power:0.5", paper=True),
        Method("truncated", f"truncated:{length}", paper=True),
        Method("randomized", "default", training="randomized", ratio=4, paper=True),
        Method("xPos", "xpos:512"),
        Method("xPos, interleaved", "xpos:512", layout="interleaved", paper=True),
        Method("NTK 4", "ntk:{}", 4),
        Method("YaRN 4", f"yarn:{{}},original_length={length}", 4),
        Method("YaRN 16", f"yarn:{{}},original_length={length}", 16),
    )
