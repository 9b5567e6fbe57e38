"""One small network of each kind, as module and image size: the fast part of the coverage."""

from collections.abc import Callable, Mapping
from typing import Any

import timm
import torchvision
from torch import nn
from torchvision.models import maxvit, swin_transformer, vision_transformer

Made = tuple[nn.Module, tuple[int, int, int]]


def of_torchvision(name: str, side: int, **options: Any) -> Callable[[], Made]:
    return lambda: (
        torchvision.models.get_model(name, weights=None, num_classes=10, **options),
        (3, side, side),
    )


def of_timm(name: str, side: int, **options: Any) -> Callable[[], Made]:
    return lambda: (timm.create_model(name, num_classes=10, **options), (3, side, side))


def small_vit() -> Made:
    module = vision_transformer.VisionTransformer(
        image_size=64,
        patch_size=16,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=10,
    )
    return module, (3, 64, 64)


def small_swin() -> Made:
    module = swin_transformer.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=10,
    )
    return module, (3, 64, 64)


def small_swin_v2() -> Made:
    module = swin_transformer.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=10,
        block=swin_transformer.SwinTransformerBlockV2,
        downsample_layer=swin_transformer.PatchMergingV2,
    )
    return module, (3, 64, 64)


def small_maxvit() -> Made:
    module = maxvit.MaxVit(
        input_size=(64, 64),
        stem_channels=16,
        partition_size=4,
        block_channels=[16, 32],
        block_layers=[1, 2],
        head_dim=8,
        stochastic_depth_prob=0.2,
        num_classes=10,
    )
    return module, (3, 64, 64)


SMALL: Mapping[str, Callable[[], Made]] = {
    "plain": of_torchvision("alexnet", 96),
    "residual": of_torchvision("resnet18", 64),
    "dense": of_torchvision("densenet121", 64),
    "depthwise": of_torchvision("mobilenet_v2", 64),
    "squeeze_excite": of_torchvision("mobilenet_v3_small", 64),
    "grouped": of_torchvision("regnet_y_400mf", 64),
    "shuffle": of_torchvision("shufflenet_v2_x0_5", 64),
    "inception": of_torchvision("googlenet", 64, init_weights=False),
    "fire": of_torchvision("squeezenet1_1", 64),
    "vit": small_vit,
    "swin": small_swin,
    "swin_v2": small_swin_v2,
    "maxvit": small_maxvit,
    "timm_byobnet": of_timm("test_byobnet", 96),
    "timm_convnext": of_timm("test_convnext2", 96),
    "timm_coatnet": of_timm("test_coatnet", 160),
    "timm_efficientnet": of_timm("test_efficientnet_gn", 96),
    "timm_evonorm": of_timm("test_efficientnet_evos", 96),
    "timm_mambaout": of_timm("test_mambaout", 96),
    "timm_maxvit": of_timm("test_maxvit", 160),
    "timm_nfnet": of_timm("test_nfnet", 96),
    "timm_resnet": of_timm("test_resnet", 96),
    "timm_vit": of_timm("test_vit3", 160),
    "timm_relpos": of_timm("test_vit_relpos", 160),
    "timm_ghost": of_timm("ghostnet_050", 96),
    "timm_mobilevit": of_timm("mobilevit_xxs", 128),
    "timm_linear_attention": of_timm("efficientvit_b0", 96),
}
