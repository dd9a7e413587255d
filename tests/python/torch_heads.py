"""Tensors and helpers of the tests of PyTorch operators."""

import ropewalk as rw
import torch
from torch._dynamo.testing import CompileCounterWithBackend

DIM, TOKENS = 16, 4
ENCODING = rw.encoding("linear:8", head_dim=DIM)
IDS = torch.tensor([3, -1, 40, 7])


def heads(count=2, seed=0, tokens=TOKENS):
    return torch.randn(tokens, count, DIM, generator=torch.Generator().manual_seed(seed))


def learning(*arguments, **named):
    """heads() that require a gradient."""
    return heads(*arguments, **named).requires_grad_()


def operator_arguments(encoding=ENCODING, positions=IDS):
    """The arguments of torch.ops.ropewalk.rotate after q and k."""
    return (encoding.key, positions, 0, None, None, False, False, None, None, None)


def compiled(function, fullgraph=True, **options):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=fullgraph, backend="aot_eager", **options)


def graphs_of(function, calls, backend="aot_eager"):
    """Compile without graph breaks, compare results and gradients of every call, and return the number of graphs."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    ours = torch.compile(function, backend=counter, fullgraph=True)
    for x, *rest in calls:
        results = [f(x, *rest) for f in (ours, function)]
        torch.testing.assert_close(*results)
        if x.requires_grad:
            torch.testing.assert_close(*(torch.autograd.grad(y.pow(3).sum(), x) for y in results))
    return counter.frame_count


def assert_same_gradients(function, ours, *tensors, rtol=1e-5, atol=1e-5):
    """The gradients of two functions of the tensors, each of which returns a number."""
    for expected, found in zip(*(torch.autograd.grad(f(*tensors), tensors) for f in (function, ours))):
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
