"""What a training is fed with: images, how they are augmented, and who reads them."""
