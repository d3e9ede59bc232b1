"""Program augmentation: derivatives over State."""

from stategraph.augment.grad import grad, value_and_grad

__all__ = ["grad", "value_and_grad"]
