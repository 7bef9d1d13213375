"""Images with what is known about them."""

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A split of a data set. A slice, an index tensor or a mask in brackets gives the data set of those images."""

    name: str
    """As given to `load`."""
    split: str
    """As given to `load`."""
    images: Tensor
    """`[N, C, H, W]`, float32 in [0, 1]."""
    labels: Tensor | None = None
    """Classes from 0, int64 `[N]`; None where there are none."""
    factors: Tensor | None = None
    """What a drawn image was drawn from, as indices, int64 `[N, F]`; None for photographed and written ones."""
    factor_names: tuple[str, ...] = ()
    """`F` names."""
    factor_sizes: tuple[int, ...] = ()
    """How many values each factor takes, `F` numbers."""

    def __len__(self) -> int:
        """The number of images, N."""
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> Self:
        """The data set of the chosen images.

        Raises:
            ValueError: `index` is a single number: write `data.images[i]`, or `data[i:i + 1]`.
        """
        if not isinstance(index, slice | Tensor):
            raise ValueError(f"index: expected a slice or a tensor, got {index!r}; for one image use data.images[i]")
        labels = None if self.labels is None else self.labels[index]
        factors = None if self.factors is None else self.factors[index]
        return replace(self, images=self.images[index], labels=labels, factors=factors)
