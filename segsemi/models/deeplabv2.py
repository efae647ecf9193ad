"""DeepLabV2 (Chen et al. 2016), which segmentation-models-pytorch lacks: parallel dilated convolutions, summed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATES = (6, 12, 18, 24)  # of ASPP-L, the larger of the two published variants


class DeepLabV2(nn.Module):
    """An encoder, then one 3x3 convolution to the classes per rate, summed and upsampled.

    Attributes:
        encoder: an encoder of segmentation-models-pytorch, (N, 3, H, W) -> features, the last (N, C, H/stride, W/stride).
        classifier: the dilated convolutions.
    """

    def __init__(self, encoder: nn.Module, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        convs = [nn.Conv2d(in_channels, num_classes, kernel_size=3, padding=rate, dilation=rate) for rate in RATES]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
        self.classifier = nn.ModuleList(convs)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes, H, W) of (N, 3, H, W); H and W are multiples of the output stride."""
        features = self.encoder(images)[-1]
        logits = torch.stack([conv(features) for conv in self.classifier]).sum(dim=0)
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
