"""The canonical JSON of a spec, exact masks in a file beside it: what ``load`` reads back."""

from prunenas.arch.masks_file import SUFFIX
from prunenas.arch.spec import ArchSpec
from prunenas.export.base import EXPORTERS, Files


@EXPORTERS.register("json")
def json_spec(spec: ArchSpec) -> str | Files:
    """Return the canonical JSON of ``spec``, byte for byte what ``spec.save`` writes.

    Raises:
        MaskError: The bits of an exact mask are not here.
    """
    text = spec.to_json() + "\n"
    masks = spec.masks_file()
    return text if masks is None else Files(text=text, beside={SUFFIX: masks})
