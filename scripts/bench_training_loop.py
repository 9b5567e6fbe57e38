"""The loop of the paper's released code, told anew, as what ``bench_training.py`` measures against.

Images are made one by one by PIL and torchvision in a DataLoader, the network runs eagerly in
single precision, and every step reads its loss and its right answers back. Only the network is
ours, so that the arithmetic is the same.

Source: the CIFAR scripts of Liu et al. 2019, arXiv:1810.05270 (Pad 4, RandomCrop,
RandomHorizontalFlip, ToTensor, Normalize; SGD with momentum 0.9 and decay 1e-4; batch 64, tests of
256; a line every 100 batches).
"""

import io
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from prunenas.data.base import ImageData

BATCH, TEST_BATCH, LINE_EVERY = 64, 256, 100


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's own data sets keep them: arrays, made a PIL image when asked for."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Any) -> None:
        channels_last = images.permute(0, 2, 3, 1).numpy()
        self.arrays = channels_last[..., 0] if channels_last.shape[3] == 1 else channels_last
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[place])), self.labels[place]


def loaders(
    data: ImageData, *, workers: int, cuda: bool
) -> tuple[DataLoader[tuple[Tensor, int]], DataLoader[tuple[Tensor, int]]]:
    """Return the loaders of training and test images."""
    plain = [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
    drawn = [
        transforms.Pad(data.crop_padding),
        transforms.RandomCrop(data.input_size[1:]),
        transforms.RandomHorizontalFlip(),
    ]
    how: dict[str, Any] = {"shuffle": True, "num_workers": workers, "pin_memory": cuda}
    train = Pictures(data.train_images, data.train_labels, transforms.Compose(drawn + plain))
    test = Pictures(data.test_images, data.test_labels, transforms.Compose(plain))
    return (
        DataLoader(train, batch_size=BATCH, **how),
        DataLoader(test, batch_size=TEST_BATCH, **how),
    )


class PaperLoop:
    """Trains ``network`` as the released code does, a step at a time.

    Args:
        network: On its device.
        data: Images on the CPU.
        workers: Processes that make images; 0 for none.
        lr: The learning rate, which changes no speed.
    """

    def __init__(self, network: nn.Module, data: ImageData, *, workers: int, lr: float) -> None:
        self.network = network
        self.device = next(network.parameters()).device
        self.train_loader, self.test_loader = loaders(
            data, workers=workers, cuda=self.device.type == "cuda"
        )
        self.optimizer = torch.optim.SGD(
            network.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4
        )
        self.told = io.StringIO()

    def steps(self) -> Iterator[int]:
        """Yield the images of each step, when it is done, for ever."""
        while True:
            self.network.train()
            loss_sum, right = 0.0, 0
            for number, (images, labels) in enumerate(self.train_loader):
                images, labels = images.to(self.device), labels.to(self.device)
                self.optimizer.zero_grad()
                scores = self.network(images)
                loss = functional.cross_entropy(scores, labels)
                loss_sum += loss.item()
                guesses = scores.detach().max(1, keepdim=True)[1]
                right += int(guesses.eq(labels.view_as(guesses)).cpu().sum())
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                if number % LINE_EVERY == 0:
                    print(f"batch {number}: loss {loss.item():.6f}", file=self.told)
                yield len(labels)

    def test(self) -> float:
        """Return the accuracy on the test images."""
        self.network.eval()
        loss_sum, right = 0.0, 0
        with torch.no_grad():
            for images, labels in self.test_loader:
                images, labels = images.to(self.device), labels.to(self.device)
                scores = self.network(images)
                loss_sum += functional.cross_entropy(scores, labels, reduction="sum").item()
                right += int(scores.max(1)[1].eq(labels).cpu().sum())
        return right / len(self.test_loader.dataset)  # type: ignore[arg-type]

    def images(self) -> Iterator[int]:
        """Yield the images of each batch that the loader alone brings to the device, for ever."""
        while True:
            for images, labels in self.train_loader:
                images.to(self.device)
                yield len(labels)
