"""When an operator must be called as one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.overrides import _len_torch_function_stack  # pyright: ignore[reportPrivateImportUsage]
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def is_recorded(*tensors: Tensor) -> bool:
    """Whether something follows what is done to these tensors: a compiler, a tracer, a mode, a transform of
    torch.func, autograd.

    If not, the function behind an operator may be called as it is. The dispatcher takes 15 microseconds of
    Python, as long as the work does where there is little of it.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return True
    if is_in_torch_dispatch_mode() or _len_torch_function_stack() or forward_ad._current_level >= 0:
        return True
    learns = torch.is_grad_enabled()
    return any(not _is_plain(tensor) or (learns and tensor.requires_grad) for tensor in tensors)


def _is_plain(tensor: Tensor) -> bool:
    """It holds numbers: it is no subclass, and nothing that torch.func wraps."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # pyright: ignore
    return type(tensor) in (Tensor, Parameter) and not tensor.is_meta and not wrapped
