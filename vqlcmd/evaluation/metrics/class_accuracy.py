"""Class accuracy: the fraction of samples that the proxy classifier assigns to the class they were generated for."""

from torch import Tensor

from vqlcmd.evaluation.comparison import Comparison, Measure

FEATURES = "features"


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`class_accuracy` of samples; None, with a note, unless the logits are for the data's classes."""
    if comparison.samples is None:
        return {}
    labels, logits = comparison.samples.labels, comparison.generated.logits
    if comparison.settings.features != "proxy":
        return {"class_accuracy": Measure(None, f"{comparison.settings.features} does not know this data's classes")}
    if labels is None or logits is None:
        return {"class_accuracy": Measure(None, "the data has no classes")}
    return {"class_accuracy": Measure(class_accuracy(logits, labels))}


def class_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction in 0..1 of images whose largest logit (n, C) is that of their label (n,)."""
    assert labels.shape == logits.shape[:1], (labels.shape, logits.shape)
    assert len(logits) > 0
    return (logits.argmax(dim=1) == labels.to(logits.device)).double().mean().item()
