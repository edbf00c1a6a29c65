"""What a reward may know of a prediction."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Judgement:
    """How right and how sure predictions were; all of one shape, float32."""

    correct: Tensor
    """1 where the prediction is the label, else 0."""
    log_prob: Tensor
    """Log-probability of the label, in nats."""
    confidence: Tensor
    """Probability of the predicted class, whether it is the label or not."""

    def double(self) -> Judgement:
        """The same in float64."""
        return Judgement(self.correct.double(), self.log_prob.double(), self.confidence.double())

    def clone(self) -> Judgement:
        """A copy that may be changed in place."""
        return Judgement(self.correct.clone(), self.log_prob.clone(), self.confidence.clone())

    def __getitem__(self, images: slice) -> Judgement:
        """Some of them."""
        return Judgement(self.correct[images], self.log_prob[images], self.confidence[images])


def judge(logits: Tensor, labels: Tensor) -> Judgement:
    """Judge predictions.

    Args:
        logits: (..., classes), of any float type.
        labels: int64, of a shape that broadcasts to (...).

    Returns:
        Of shape (...).
    """
    log_probs = logits.float().log_softmax(-1)
    labels = labels.expand(log_probs.shape[:-1])
    return Judgement(
        # Of the logits: rounding makes ties of nearly equal probabilities.
        correct=(logits.argmax(-1) == labels).float(),
        log_prob=log_probs.gather(-1, labels[..., None])[..., 0],
        confidence=log_probs.amax(-1).exp(),
    )
