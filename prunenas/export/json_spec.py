"""The canonical JSON of a spec: what ``load`` reads back."""

from prunenas.arch.spec import ArchSpec
from prunenas.export.base import EXPORTERS


@EXPORTERS.register("json")
def json_spec(spec: ArchSpec) -> str:
    """Return the canonical JSON of ``spec``, byte for byte what ``spec.save`` writes."""
    return spec.to_json() + "\n"
