"""PyTorch's tensors as NumPy arrays and back, without sharing memory."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

# A tensor of PyTorch, of which nothing is known here, a NumPy array or a number.
TensorLike: TypeAlias = Any


def as_numpy(x: TensorLike) -> np.ndarray:
    """A copy of a tensor, on whatever device, of an array or of a number."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        # NumPy has no bfloat16 of PyTorch's; float32 holds all of its numbers.
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
