"""Made-up inputs of a usual size for an engine, as its manifest tells."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from engines.base import Array, Engine, EngineError, Signature, TensorSpec
from engines.manifest import Manifest
from engines.sections.text import MASK
from engines.tensorrt import sizes
from engines.zoo.errors import ZooError

#: Tried in turn for dimensions of which the manifest says nothing.
_SIZES_TO_TRY: Final = (1, 16, 224)


class Inputs:
    """Batches of any number of rows; open dimensions are as large as is usual.

    Numbers are normally distributed, from a seed; integers are 0, which is an index of every table.
    """

    def __init__(self, manifest: Manifest, signature: Signature) -> None:
        known = sizes.dimensions(manifest, signature.inputs)
        self._sizes = {name: stretches[0].greatest for name, stretches in known.items()}
        self._signature = signature
        self.size_of_others = 1

    @property
    def sizes(self) -> Mapping[str, int]:
        """The sizes of the open dimensions that are not rows, by name."""
        skip = 1 if self._signature.batchable else 0
        names = [size for spec in self._signature.inputs for size in spec.shape[skip:] if isinstance(size, str)]
        return {name: self._sizes.get(name, self.size_of_others) for name in dict.fromkeys(names)}

    def batch(self, rows: int) -> dict[str, Array]:
        """Inputs of so many rows."""
        random = np.random.default_rng(0)
        return {spec.name: self._tensor(spec, rows, random) for spec in self._signature.inputs}

    def settle(self, engine: Engine) -> None:
        """Find sizes that the engine computes. Raises ZooError when there are none."""
        problem = ""
        for size in _SIZES_TO_TRY:
            self.size_of_others = size
            try:
                engine.run(self.batch(1))
            except EngineError as error:
                problem = str(error)
            else:
                return
        raise ZooError(
            f"made-up inputs do not run ({problem}): say in model.toml how large the open dimensions get,"
            " [dimensions] NAME = { greatest = [N] }"
        )

    def _tensor(self, spec: TensorSpec, rows: int, random: np.random.Generator) -> Array:
        sizes_ = self.sizes
        shape = [sizes_.get(size, rows) if isinstance(size, str) else size for size in spec.shape]
        if self._signature.batchable:
            shape[0] = rows
        if spec.datatype == "BYTES":
            return np.full(shape, b"", object)
        if np.issubdtype(spec.dtype, np.floating):
            return random.standard_normal(shape).astype(spec.dtype)
        return np.full(shape, spec.name == MASK, spec.dtype)
