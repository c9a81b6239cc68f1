"""PyTorch's tensors as NumPy arrays and back, without sharing memory."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

# A PyTorch tensor, whose class is not known here, a NumPy array or a number.
TensorLike: TypeAlias = Any


def as_numpy(x: TensorLike) -> np.ndarray:
    """A copy of a tensor on any device, of an array or of a number."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        # PyTorch cannot convert bfloat16 to NumPy; float32 holds all of its numbers.
        x = (x.float() if "float" in str(x.dtype) and x.itemsize < 4 else x).numpy()
    return np.array(x, copy=True)


def as_tensor(x: np.ndarray) -> TensorLike:
    """A tensor with a copy of the array; the copy itself where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return np.array(x, copy=True)
    narrow = x.dtype.name == "bfloat16"
    tensor = torch.tensor(x.astype(np.float32) if narrow else x)
    return tensor.bfloat16() if narrow else tensor
