"""Handwritten digits that come with scikit-learn: 1,797 scans, no download."""

from pathlib import Path

import torch

from prunenas.data.base import (
    DATASETS,
    ImageData,
    Part,
    channel_statistics,
    hold_out,
    refuse_argument,
    split_validation,
)


@DATASETS.register("digits")
def digits(argument: str, root: Path, download: bool) -> ImageData:
    """Return the scans as 16x16 images of 10 classes; a fixed fifth is the test part.

    Each pixel of the 8x8 scans (0 to 16) is repeated twice in both directions: this leaves room
    for two more strides, adds nothing that was not measured, and is exact on each machine, which
    interpolation is not.

    Source: Alpaydin and Kaynak 1998, UCI, Optical Recognition of Handwritten Digits, its test set.
    """
    refuse_argument("digits", argument)
    # Imported here, as in each data set: scanning the wing must not load scikit-learn.
    from sklearn.datasets import load_digits

    scans = load_digits()
    grey = torch.from_numpy(scans.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    images = grey.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    train, test = hold_out(Part(images, torch.from_numpy(scans.target).long()))
    mean, std = channel_statistics(train.images)
    return ImageData(
        name="digits",
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        classes=10,
        mean=mean,
        std=std,
        flip=False,
        crop_padding=2,  # one pixel of the scan
        validation=split_validation(train.labels),
        notes=(f"test part: {len(test)} images held out, stratified, seed=0",),
    )
