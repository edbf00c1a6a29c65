"""Backbones: what is registered, what it computes, and what it costs by torch's own count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import normalize

from lcnet_rl.backbones import MEAN, STD, Backbone, BackboneSpec, ConvPool, create_backbone, pool
from lcnet_rl.errors import UserError
from lcnet_rl.families import BACKBONES
from lcnet_rl.macs import CostTable, cost_table

HE = [name for name, family in BACKBONES.items() if not family.projection]


def tiny_backbone(name: str = "resnet8", classes: int = 4, width: int = 4, seed: int = 0) -> Backbone:
    """A small network in eval mode, none of whose BatchNorms is an identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = create_backbone(name, classes, width)
        for norm in backbone.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, 0, 0.3)
                nn.init.normal_(norm.running_mean, 0, 0.3)
                nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return backbone.eval()


def noise(count: int = 3, seed: int = 0) -> Tensor:
    """Random images of random brightness, uint8 (count, 3, 32, 32)."""
    random = torch.Generator().manual_seed(seed)
    brightness = torch.rand(count, 3, 1, 1, generator=random)
    return (256 * brightness * torch.rand(count, 3, 32, 32, generator=random)).to(torch.uint8)


def meta_backbone(name: str, width: int | None = None) -> Backbone:
    """Shapes without numbers, which is fast for the widest network too."""
    with torch.device("meta"):
        return create_backbone(name, 10, width)


def gateless_costs(backbone: Backbone) -> CostTable:
    nothing = [0] * len(backbone.blocks)
    return cost_table(backbone, nothing, nothing)


def torch_macs(backbone: Backbone) -> int:
    """Multiply-adds of a plain forward pass of one image, as torch counts them."""
    device = backbone.head.weight.device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=device))
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


@pytest.mark.parametrize("name", BACKBONES)
def test_every_registered_backbone_maps_images_to_logits(name: str) -> None:
    backbone = meta_backbone(name)
    widths = {"resnet18": 64, "resnet16-late": 24, "resnet14-wide": 64, "resnet11-pool": 32}
    assert backbone.spec == BackboneSpec(name, 10, widths.get(name, 16))
    logits = backbone(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device="meta"))
    assert logits.shape == (2, 10)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", BACKBONES)
def test_a_network_has_the_layers_that_its_name_counts(name: str) -> None:
    modules = list(meta_backbone(name).modules())
    convolutions = [m for m in modules if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    linears = [m for m in modules if isinstance(m, nn.Linear)]
    assert len(convolutions) + len(linears) == int(name.removeprefix("resnet").partition("-")[0])


@pytest.mark.parametrize("name", HE)
def test_stages_double_the_filters_and_halve_the_size(name: str) -> None:
    blocks = list(meta_backbone(name).blocks)
    count = len(blocks) // 3
    assert [block.filters for block in blocks] == [16] * count + [32] * count + [64] * count
    strides = [block.stride for block in blocks]
    assert strides == [1] * count + [2] + [1] * (count - 1) + [2] + [1] * (count - 1)


@pytest.mark.parametrize("name", HE)
def test_the_shortcut_of_he_networks_has_no_parameters(name: str) -> None:
    assert [p for block in meta_backbone(name).blocks for p in block.shortcut.parameters()] == []


def test_the_padded_shortcut_subsamples_and_pads_with_zero_channels() -> None:
    shortcut = tiny_backbone().blocks[1].shortcut
    x = torch.randn(2, 4, 32, 32)
    out = shortcut(x)
    assert out.shape == (2, 8, 16, 16)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


def test_resnet18_projects_where_the_shape_changes_and_only_there() -> None:
    blocks = list(meta_backbone("resnet18").blocks)
    assert [block.filters for block in blocks] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [isinstance(block.shortcut, nn.Identity) for block in blocks] == [True, True] + [False, True] * 3


def test_images_are_scaled_to_one_and_normalised_by_the_imagenet_statistics() -> None:
    backbone, images, seen = tiny_backbone(), noise(), []
    backbone.stem.conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone(images)
    torch.testing.assert_close(seen[0], normalize(images.float() / 255, MEAN, STD), rtol=1e-5, atol=1e-6)
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    backbone(white)
    assert seen[1][0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)


def test_the_late_network_spends_most_of_its_compute_on_8x8_features() -> None:
    backbone = meta_backbone("resnet16-late")
    costs = gateless_costs(backbone)
    filters = [backbone.block(t).filters for t in range(7)]
    shares = [cost.filter * count / costs.dense for cost, count in zip(costs.blocks, filters, strict=True)]
    assert filters == [24, 48, 144, 144, 144, 144, 144]
    assert sum(shares[3:]) > 0.7, "after the first 8x8 features, and so open to decisions about them"
    assert [type(block.shortcut) for block in backbone.blocks[3:]] == [nn.Identity] * 4


def test_the_wide_network_pools_early_and_spends_alike_on_all_blocks() -> None:
    backbone = meta_backbone("resnet14-wide")
    costs = gateless_costs(backbone)
    x, shapes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device="meta"), []
    for module in (backbone.stem, *backbone.blocks):
        x = module(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [*[(64, 16, 16)] * 3, *[(128, 8, 8)] * 4]
    assert backbone.sizes() == [size for _, size, _ in shapes]
    shares = [cost.dense / costs.dense for cost in costs.blocks]
    assert max(shares) < 1.3 * min(shares)


def test_the_pooled_network_convolves_before_it_halves_and_spends_alike_on_all_of_its_parts() -> None:
    backbone = meta_backbone("resnet11-pool")
    x, shapes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device="meta"), []
    for module in (backbone.stem, *backbone.blocks):
        x = module(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (256, 4, 4)]
    assert backbone.sizes() == [size for _, size, _ in shapes]
    costs = gateless_costs(backbone)
    exits = [cost.shortcut for cost in costs.blocks]
    residuals = [cost.filter * cost.filters for cost in costs.blocks]
    assert exits == [residuals[0]] * 2 + [0]
    assert residuals == [residuals[0]] * 3
    assert costs.stem == residuals[0] + 3 * 9 * 32 * 32 * 32


def test_a_stage_may_begin_with_a_convolution_that_pools() -> None:
    module, x = ConvPool(2, 4).eval(), torch.randn(2, 2, 6, 6)
    expected = F.max_pool2d(F.relu(module.bn(F.conv2d(x, module.conv.weight, padding=1))), 2)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "resnet14-wide", "resnet11-pool"])
def test_a_forward_pass_is_stem_blocks_pool_and_head(name: str) -> None:
    backbone, images = tiny_backbone(name), noise()
    x = backbone.stem(images)
    if name == "resnet14-wide":
        normalised = normalize(images.float() / 255, MEAN, STD)
        convolved = F.relu(backbone.stem.bn(F.conv2d(normalised, backbone.stem.conv.weight, padding=1)))
        torch.testing.assert_close(x, F.max_pool2d(convolved, 2), rtol=1e-5, atol=1e-5)
    for block in backbone.blocks:
        hidden = F.relu(block.bn1(block.conv1(x)))
        x = block.exit(F.relu(block.shortcut(x) + block.bn2(block.conv2(hidden))))
    expected = backbone.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
    torch.testing.assert_close(backbone(images), expected, rtol=1e-5, atol=1e-5)


def test_pooling_and_the_head_compute_in_float32_whatever_the_features() -> None:
    features = torch.randn(2, 4, 8, 8).bfloat16()
    assert pool(features).dtype == torch.float32
    torch.testing.assert_close(pool(features), features.double().mean((2, 3)).float())


@pytest.mark.parametrize(("name", "width"), [*((name, None) for name in BACKBONES), ("resnet18", 16), ("resnet18", 64)])
def test_dense_macs_are_half_of_the_flops_that_torch_counts(name: str, width: int | None) -> None:
    backbone = meta_backbone(name, width)
    assert gateless_costs(backbone).dense == torch_macs(backbone)


def test_dense_macs_of_resnet20_are_the_published_forty_one_million() -> None:
    assert gateless_costs(meta_backbone("resnet20")).dense == 40_551_040  # He et al. and others: 41 M


def test_an_unknown_backbone_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'resnet21'; did you mean .*resnet20"):
        create_backbone("resnet21")


@pytest.mark.parametrize("width", [-4, 0, 1, 7])
def test_a_width_that_no_network_can_have_is_refused(width: int) -> None:
    with pytest.raises(UserError, match=f"width must be an even number >= 2, got {width}"):
        create_backbone("resnet8", width=width)


@pytest.mark.parametrize("classes", [-1, 0, 1])
def test_fewer_than_two_classes_are_refused(classes: int) -> None:
    with pytest.raises(UserError, match=f"at least 2 classes, got {classes}"):
        create_backbone("resnet8", classes=classes)
