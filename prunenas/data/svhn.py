"""Street View House Numbers, cropped digits, read and fetched by torchvision."""

from pathlib import Path

import torch

from prunenas.data.base import (
    DATASETS,
    ImageData,
    channel_statistics,
    open_torchvision,
    refuse_argument,
    split_validation,
)


@DATASETS.register("svhn")
def svhn(argument: str, root: Path, download: bool) -> ImageData:
    """Return SVHN: 73,257 and 26,032 colour images of 32x32, the digits 0 to 9.

    The extra training set is not used. A mirrored digit is another sign, so nothing is flipped.

    Source: Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning.
    """
    refuse_argument("svhn", argument)
    from torchvision.datasets import SVHN

    calls = "; ".join(f'SVHN("{root}", "{split}", download=True)' for split in ("train", "test"))
    train, test = open_torchvision(
        "svhn",
        root,
        {SVHN.split_list[split][1]: SVHN.split_list[split][2] for split in ("train", "test")},
        lambda folder, fetch: [SVHN(folder, split, download=fetch) for split in ("train", "test")],
        download=download,
        command=f"from torchvision.datasets import SVHN; {calls}",
    )
    images, labels = torch.from_numpy(train.data).contiguous(), torch.from_numpy(train.labels)
    mean, std = channel_statistics(images)
    return ImageData(
        name="svhn",
        train_images=images,
        train_labels=labels,
        test_images=torch.from_numpy(test.data).contiguous(),
        test_labels=torch.from_numpy(test.labels),
        classes=10,
        mean=mean,
        std=std,
        flip=False,
        crop_padding=4,
        validation=split_validation(labels),
    )
