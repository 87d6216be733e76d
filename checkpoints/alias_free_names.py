"""Tensor names of the convolutional networks of BigCodec, which X-Codec 2 has too, as rows of a table."""

from .renames import Renames

# Of the low-pass filters around an activation: constants, which ours computes.
FILTERS = (".upsample.filter", ".downsample.lowpass.filter")


def network_names(official: str, ours: str) -> Renames:
    """Names of a row of blocks: layers of units, units of layers, each a list inside `block`.

    The rows with a name in them come first: read backwards, the others would take those for numbers.
    """
    return (
        (f"{official}.*.block.*.block.*.act.*", f"{ours}.*.*.*.act.*"),
        (f"{official}.*.block.*.act.*", f"{ours}.*.*.act.*"),
        (f"{official}.*.block.*.block.*.*", f"{ours}.*.*.*.*"),
        (f"{official}.*.lstm.*", f"{ours}.*.lstm.*"),
        (f"{official}.*.act.*", f"{ours}.*.act.*"),
        (f"{official}.*.block.*.*", f"{ours}.*.*.*"),
        (f"{official}.*.*", f"{ours}.*.*"),
    )
