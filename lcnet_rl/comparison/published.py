"""Published results on CIFAR-10's test images, to plot beside one's own.

MACs as the papers count them, which is not always with gates, and accuracies of their own training recipes: for
orientation, not a controlled comparison. Where a paper counts FLOPs as two a MAC, they are halved here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One method's points."""

    method: str
    """As the paper calls it."""
    source: str
    """Authors, year, and where to find it."""
    points: tuple[tuple[float, float], ...]
    """MMACs per image, and accuracy in percent."""

    @property
    def is_dynamic(self) -> bool:
        """Whether images cost differently; ``method`` says so where they do not."""
        return not self.method.startswith(("static: ", "pruned: "))


CIFAR10 = (
    Published(
        "LC-Net, ResNet-18 wide",
        "Xia et al., 2020, arXiv 2007.15151; read off its plot",
        ((120, 93.38), (170, 93.73), (270, 94.68), (330, 95.24), (350, 95.32)),
    ),
    Published("BlockDrop, ResNet-110", "Wu et al., CVPR 2018, arXiv 1711.08393; policy net included", ((90, 93.6),)),
    Published(
        "SkipNet, ResNet-38/74/110",
        "Wang et al., ECCV 2018, arXiv 1711.09485; hybrid RL",
        ((58, 92.75), (88, 92.77), (125, 93.30)),
    ),
    Published("ConvNet-AIG, ResNet-110", "Veit and Belongie, ECCV 2018, arXiv 1711.11503", ((205, 94.24),)),
    Published("DynConv, ResNet-32", "Verelst and Tuytelaars, CVPR 2020, arXiv 1912.03203", ((55, 93.58),)),
    Published("IamNN, ResNet-101", "Leroux et al., 2018, arXiv 1804.10123", ((1100, 94.6),)),
    Published(
        "static: ResNet-20/32/44/56/110",
        "He et al., CVPR 2016, arXiv 1512.03385",
        ((41, 91.7), (69, 92.6), (97, 93.1), (126, 93.4), (253, 93.6)),
    ),
    Published("pruned: FilterSketch, ResNet-110", "Lin et al., 2020, arXiv 2001.08514", ((93, 93.44),)),
    Published(
        "pruned: Torch-Pruning, ResNet-56", "Fang et al., CVPR 2023, arXiv 2301.12900", ((59, 93.77), (49, 93.64))
    ),
    Published(
        "static: CondenseNet-50 to 122",
        "Huang et al., CVPR 2018, arXiv 1711.09224; its FLOPs are multiply-adds; the authors' repository",
        ((28.6, 93.78), (51.9, 94.72), (65.8, 94.94), (81.3, 95.17), (98.2, 95.37), (116.7, 95.52)),
    ),
    Published(
        "static: CondenseNetV2-110/146",
        "Yang et al., CVPR 2021, arXiv 2104.04382; its FLOPs are multiply-adds; the authors' repository",
        ((41, 95.35), (62, 95.65)),
    ),
)
