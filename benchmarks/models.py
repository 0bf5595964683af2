"""The networks of the benchmark, untrained. Shapes: B batch, C classes, F features, L tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (as PyTorch itself writes it)


def resnet8(classes: int = 10, width: int = 16) -> nn.Module:
    """Return a residual network with batch normalisation: (B, 1, 28, 28) to logits (B, C).

    Eight layers with weights: a stem, three blocks of two convolutions, a linear layer (He et
    al. 2016, arXiv 1512.03385, section 4.2, with n = 1). The stem halves the image, which that of
    the paper does not: one core is to train dozens of these.
    """
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),  # (B, width, 14, 14)
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, width, 1),
        Block(width, 2 * width, 2),  # (B, 2·width, 7, 7)
        Block(2 * width, 4 * width, 2),  # (B, 4·width, 4, 4)
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def mlp(features: int, classes: int, width: int = 256) -> nn.Module:
    """Return a network of two hidden layers: (B, F) to logits (B, C)."""
    return nn.Sequential(
        nn.Linear(features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def bag_of_words(vocabulary: int, classes: int, width: int = 64) -> nn.Module:
    """Return a mean of word vectors under two linear layers: tokens (B, L) to logits (B, C).

    Token 0 fills up short texts and takes no part in the mean.
    """
    return nn.Sequential(
        nn.EmbeddingBag(vocabulary, width, mode="mean", padding_idx=0),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Draw the weights; the way around is a projection where the shape changes."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.around: nn.Module = (
            nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU(body(x) + around(x))."""
        return F.relu(self.body(x) + self.around(x))
