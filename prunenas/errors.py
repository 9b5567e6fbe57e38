"""Every error this package raises on purpose, each with who raises it."""


class PruneNASError(Exception):
    """Base of all errors raised on purpose."""


class InputError(PruneNASError, ValueError):
    """Something that was handed in is wrong. The command line exits with 2."""


class RunError(PruneNASError, RuntimeError):
    """A run that began well has failed. The command line exits with 1."""


class UnknownNameError(InputError):
    """A registry was asked for a name nobody registered; raised by ``registry``."""


class PluginError(InputError):
    """A plug-in of another package cannot be had; raised by ``registry``."""


class ShapeError(InputError):
    """Shapes do not fit an op; raised by the ops' shape rules."""


class GraphError(InputError):
    """A graph is not well formed; raised when a ``Graph`` is made."""


class KeepError(InputError):
    """A keep is not a fraction in (0, 1]; raised wherever one is taken."""


class DescriptorError(InputError):
    """A descriptor does not fit its graph; raised by ``arch.descriptor.apply``."""


class ProfileError(InputError):
    """A profile does not fit a graph's stages; raised by ``arch.profile``."""


class BudgetError(InputError):
    """No legal widths meet a budget; raised by ``arch.allocate``."""


class SpecError(InputError):
    """A file is not a spec this version reads; raised by ``ir.canonical`` and ``arch.spec``."""


class OutputExistsError(InputError):
    """A file would be overwritten; raised by ``arch.files``."""


class RecipeError(InputError):
    """A recipe cannot be followed; raised by ``training.recipe``."""


class DataError(InputError):
    """A data set is absent, damaged or does not fit the network; raised by ``data``."""


class MethodError(InputError):
    """A pruning method cannot work on what it was given; raised by ``generators``."""


class MaskError(InputError):
    """The bits of a mask are absent or another mask's; raised by ``ir.ops``."""


class WeightsError(InputError):
    """A file of weights is absent, damaged or another network's; raised by ``build.weights``."""


class MeasureError(InputError):
    """A network cannot be measured as asked; raised by ``build.measure``."""


class SpaceError(InputError):
    """A search space is wrong; raised by ``search.space``."""


class RunFolderError(InputError):
    """A folder is no run, or is another one's.

    Raised by ``training.keeping`` and ``report.run_state``.
    """


class CheckpointError(InputError):
    """A checkpoint is damaged or another training's; raised by ``training.keeping``."""


class TraceError(InputError):
    """A module cannot be turned into a graph, or not into the same function; by ``importers``."""


class DivergenceError(RunError):
    """A loss stopped being finite.

    Raised by ``training.run`` and ``training.loop``; ``search.objective`` hands it on.
    """


class WorkerError(RunError):
    """A process that trains has died, or failed without a name; raised by ``training.workers``."""


class StoppedError(RunError):
    """A run ended early because it was asked to, and can go on.

    Raised by ``training.follow`` and ``search.worker``.
    """


class SavingError(RunError):
    """A checkpoint cannot be written; raised by ``training.keeping``."""


class MemoryShortageError(RunError):
    """More memory is needed than there is; raised by ``training.execution`` and ``build.measure``.

    ``parts`` says into how many parts each batch must be cut to fit; None where no cut was found
    that helps.
    """

    def __init__(self, message: str, parts: int | None = None) -> None:
        super().__init__(message)
        self.parts = parts


class ReadingError(RunError):
    """A process that reads images has died or failed; raised by ``training.batches``."""


class PeerError(RunError):
    """Another process of one training failed first, and says why; by ``training.execution``."""
