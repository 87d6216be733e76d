"""When an operator must be called as one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def is_recorded(*tensors: Tensor) -> bool:
    """Whether something follows what is done to these tensors: a compiler, a tracer, a mode, autograd.

    If not, the function behind an operator may be called as it is. The dispatcher takes 15 microseconds of
    Python, as long as the work does where there is little of it.
    """
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if torch.compiler.is_compiling() or tracing or is_in_torch_dispatch_mode():
        return True
    learns = torch.is_grad_enabled()
    return any(
        type(tensor) not in (Tensor, Parameter) or tensor.is_meta or (learns and tensor.requires_grad)
        for tensor in tensors
    )
