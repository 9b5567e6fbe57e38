"""The networks of the coverage tests: torchvision's, and one small model of each timm family."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torchvision
from torch import nn

TRACED = "traced"
"""Outcome of a model that is imported; another outcome is the reason why it is refused."""

TORCHVISION: tuple[str, ...] = tuple(torchvision.models.list_models(module=torchvision.models))


@dataclass(frozen=True)
class Timm:
    """One model of a family of timm.

    Args:
        model: Its name in timm.
        outcome: ``traced``, or why it is refused.
        told: Words of the message that refuses it.
        options: What it is made with, where its own size is too much for a small machine.
        side: Height and width of its images, where they are others than its own.
    """

    model: str
    outcome: str = TRACED
    told: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    side: int | None = None

    @property
    def traced(self) -> bool:
        return self.outcome == TRACED

    def make(self) -> tuple[nn.Module, tuple[int, int, int]]:
        module = timm.create_model(self.model, **self.options)
        channels, *own = module.pretrained_cfg["input_size"]
        height, width = own if self.side is None else (self.side, self.side)
        return module, (channels, height, width)


FAMILIES: Mapping[str, Timm] = {
    "beit": Timm("beit_base_patch16_224"),
    "byoanet": Timm("botnet26t_256"),
    "byobnet": Timm("mobileone_s1"),
    "cait": Timm("cait_xxs24_224"),
    "coat": Timm("coat_tiny"),
    "convit": Timm("convit_tiny"),
    "convmixer": Timm("convmixer_768_32"),
    "convnext": Timm("convnext_atto_rms"),
    "cpubone": Timm("cpubone_nano"),
    "crossvit": Timm("crossvit_tiny_240"),
    "csatv2": Timm(
        "csatv2",
        "its attention lays the batch out behind another dimension",
        "the batch is not the first dimension here",
    ),
    "cspnet": Timm("cs3darknet_focus_s"),
    "cspnext": Timm("cspnext_tiny"),
    "davit": Timm("davit_tiny"),
    "deepseek_vit": Timm("deepseek_vit_412m", options={"depth": 2}, side=224),
    "deit": Timm("deit_tiny_patch16_224"),
    "densenet": Timm("densenet121"),
    "dla": Timm("dla46x_c"),
    "dpn": Timm("dpn48b"),
    "edgenext": Timm("edgenext_xx_small"),
    "efficientformer": Timm("efficientformer_l1"),
    "efficientformer_v2": Timm("efficientformerv2_s0"),
    "efficientnet": Timm("mnasnet_small"),
    "efficientvim": Timm("efficientvim_m1"),
    "efficientvit_mit": Timm("efficientvit_b0"),
    "efficientvit_msra": Timm("efficientvit_m0"),
    "eva": Timm("eva02_tiny_patch14_224"),
    "fasternet": Timm("fasternet_t0"),
    "fastvit": Timm("fastvit_t8"),
    "focalnet": Timm("focalnet_tiny_srf"),
    "gcvit": Timm("gcvit_xxtiny"),
    "gemma4_vit": Timm(
        "gemma4_vit_167m",
        "it looks positions up by one-hot vectors, which has no op",
        "one_hot",
        options={"depth": 2},
        side=224,
    ),
    "ghostnet": Timm("ghostnet_050"),
    "hardcorenas": Timm("hardcorenas_b"),
    "hgnet": Timm("hgnetv2_b0"),
    "hiera": Timm("hiera_tiny_224"),
    "hieradet_sam2": Timm("hieradet_small", side=256),
    "hrnet": Timm("hrnet_w18_small"),
    "iformer": Timm("iformer_t"),
    "inception_next": Timm("inception_next_atto"),
    "inception_resnet_v2": Timm("inception_resnet_v2"),
    "inception_v3": Timm("inception_v3"),
    "inception_v4": Timm("inception_v4"),
    "lcnetv2": Timm("lcnetv2_small"),
    "levit": Timm("levit_128s"),
    "lowformer": Timm("lowformer_b0", "transposed convolutions have no op", "conv_transpose2d"),
    "mambaout": Timm("test_mambaout"),
    "maxxvit": Timm("maxvit_pico_rw_256"),
    "metaformer": Timm("poolformer_s12"),
    "mlp_mixer": Timm("gmlp_ti16_224"),
    "mobilenetv3": Timm("mobilenetv3_small_050"),
    "mobilenetv5": Timm("mobilenetv5_base", side=128),
    "mobilevit": Timm("mobilevit_xxs"),
    "mvitv2": Timm("mvitv2_tiny", "it writes into slices of a tensor, which has no op", "copy_"),
    "naflexvit": Timm(
        "naflexvit_base_patch16_gap",
        "it resizes its position embedding by a filter that has no op",
        "_upsample_bicubic2d_aa",
    ),
    "nasnet": Timm("nasnetalarge", side=128),
    "nest": Timm("nest_tiny"),
    "nextvit": Timm("nextvit_small"),
    "nfnet": Timm("nf_regnet_b0"),
    "pit": Timm("pit_ti_224"),
    "pnasnet": Timm("pnasnet5large", side=128),
    "pvt_v2": Timm("pvt_v2_b0"),
    "qwen3_vit": Timm("qwen3_vit_88m", options={"depth": 2}, side=224),
    "rdnet": Timm("rdnet_tiny"),
    "regnet": Timm("regnetx_002"),
    "repghost": Timm("repghostnet_050"),
    "repvit": Timm("repvit_m1"),
    "res2net": Timm("res2next50"),
    "resnest": Timm("resnest14d"),
    "resnet": Timm("resnet10t"),
    "resnetv2": Timm("resnetv2_18"),
    "rexnet": Timm("rexnet_100"),
    "selecsls": Timm("selecsls42"),
    "senet": Timm("legacy_seresnet18"),
    "sequencer": Timm("sequencer2d_s", "recurrent layers have no op", "lstm"),
    "shvit": Timm("shvit_s1"),
    "sknet": Timm("skresnet18"),
    "starnet": Timm("starnet_s050"),
    "swiftformer": Timm("swiftformer_xs"),
    "swin_transformer": Timm("swin_tiny_patch4_window7_224"),
    "swin_transformer_v2": Timm("swinv2_tiny_window8_256"),
    "swin_transformer_v2_cr": Timm("swinv2_cr_tiny_224"),
    "tiny_vit": Timm("tiny_vit_5m_224"),
    "tnt": Timm("tnt_s_legacy_patch16_224"),
    "tresnet": Timm("tresnet_m"),
    "twins": Timm("twins_svt_small"),
    "vgg": Timm("vgg11"),
    "visformer": Timm("visformer_tiny"),
    "vision_transformer": Timm("vit_tiny_patch16_224"),
    "vision_transformer_hybrid": Timm("vit_tiny_r_s16_p8_224"),
    "vision_transformer_relpos": Timm("test_vit_relpos"),
    "vision_transformer_sam": Timm("samvit_base_patch16_224"),
    "vitamin": Timm("vitamin_small_224"),
    "volo": Timm("volo_d1_224"),
    "vovnet": Timm("ese_vovnet19b_slim_dw"),
    "xception": Timm("legacy_xception"),
    "xception_aligned": Timm("xception41p"),
    "xcit": Timm(
        "xcit_nano_12_p8_224",
        "a convolution of its position code is made once and repeated for the batch",
        "it repeats the batch",
    ),
}
