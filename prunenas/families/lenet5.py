"""LeNet-5, in today's reading.

Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II.B.
"""

from prunenas.families.base import family, scaled
from prunenas.ir.graph import Graph, Init
from prunenas.ir.writer import GraphWriter


@family("lenet5", input_size=(1, 32, 32), classes=10)
def lenet5(net: GraphWriter, classes: int, width: float) -> Graph:
    """Return LeNet-5 with ReLU, max-pooling and fully connected maps.

    The original has a scaled tanh, trainable subsampling, a sparse second convolution and radial
    outputs; this is the variant that later pruning papers take. An image of 28x28 must be padded
    to 32x32 to give the original sizes.
    """
    x = net.relu(
        "relu1", net.conv("conv1", net.input, scaled(6, width), kernel=5, padding=0, bias=True)
    )
    x = net.max_pool("pool1", x, kernel=2)
    x = net.relu("relu2", net.conv("conv2", x, scaled(16, width), kernel=5, padding=0, bias=True))
    x = net.max_pool("pool2", x, kernel=2)
    x = net.relu("relu3", net.linear("fc1", x, scaled(120, width)))
    x = net.relu("relu4", net.linear("fc2", x, scaled(84, width)))
    return net.finish(net.linear("fc3", x, classes), Init(conv="torch"))
