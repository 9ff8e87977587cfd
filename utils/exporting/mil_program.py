"""The program in a CoreML package, computed by PyTorch.

Apple's runtime is on Apple's devices only. What the package says can be computed anywhere: its operations are few, each
with one meaning (coremltools' Model Intermediate Language). Numbers that the program keeps in fp16 are rounded to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from utils.inference.runtime_graph import Run, Tensors
from utils.user_error import UserError

Arguments = Mapping[str, Any]  # of an operation: tensors, plain values, sequences of them
Operation = Callable[[Arguments], Tensor | Sequence[Tensor]]


def mil_program(path: Path, scale: float) -> Run:
    """The graph of a CoreML package: images (B, 3, H, W) 0-1 to its outputs by name.

    ``scale``: what the program takes in the place of 1.

    Raises:
        UserError: it has an operation that is not among those here.
    """
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    package = coremltools.models.MLModel(str(path), skip_model_load=True)
    specification = package.get_spec()
    main = load(specification, specification.specificationVersion, package.weights_dir).functions["main"]
    steps = [step for step in main.operations if step.op_type != "const"]
    if unknown := {step.op_type for step in steps} - OPERATIONS.keys():
        names = ", ".join(sorted(unknown))
        raise UserError(f"its operations {names} cannot be computed here, and so not be compared with PyTorch")
    (entry,) = main.inputs
    constants: dict[str, Any] = {}

    def value(variable: Any, values: Mapping[str, Tensor]) -> Any:
        if isinstance(variable, list | tuple):
            return [value(each, values) for each in variable]
        if variable.val is None:
            return values[variable.name]
        if variable.name not in constants:
            constants[variable.name] = _plain(variable.val)
        return constants[variable.name]

    @torch.inference_mode()
    def run(images: Tensor) -> Tensors:
        values = {entry: images.cpu() * scale}
        for step in steps:
            arguments = {name: value(given, values) for name, given in step.inputs.items() if given is not None}
            made = OPERATIONS[step.op_type](arguments)
            for variable, result in zip(step.outputs, [made] if isinstance(made, Tensor) else made, strict=True):
                values[variable.name] = result.half().float() if variable.dtype.__name__ == "fp16" else result
        return {output.name: values[output.name] for output in main.outputs}

    return run


def _plain(constant: Any) -> Any:
    """A constant of the program: words as they are, numbers as a tensor, the floating ones in float32."""
    if isinstance(constant, str) or np.asarray(constant).dtype.kind in "UO":
        return constant
    numbers = torch.from_numpy(np.array(constant))
    return numbers.float() if numbers.is_floating_point() else numbers


def _padded(x: Tensor, given: Arguments, fill: float) -> Tensor:
    """A map with the border that a convolution or a pooling asks for."""
    if given["pad_type"] == "valid":
        return x
    top, bottom, left, right = given["pad"].tolist()
    return functional.pad(x, (left, right, top, bottom), value=fill)


def _convolution(given: Arguments) -> Tensor:
    strides, dilations = given["strides"].tolist(), given["dilations"].tolist()
    x = _padded(given["x"], given, 0.0)
    return functional.conv2d(x, given["weight"], given.get("bias"), strides, 0, dilations, int(given["groups"]))


def _dequantized(given: Arguments) -> Tensor:
    """Weights out of integers: their scales lie along one axis, or are one."""
    integers: Tensor = given["quantized_data"]
    along = [1] * integers.ndim
    along[int(given["axis"])] = -1
    shape = along if given["scale"].numel() > 1 else []
    scale: Tensor = given["scale"].float().reshape(shape)
    zero: Tensor = given["zero_point"].float()
    return (integers.float() - (zero.reshape(along) if zero.numel() > 1 else zero)) * scale


def _max_pool(given: Arguments) -> Tensor:
    x = _padded(given["x"], given, -torch.inf)
    return functional.max_pool2d(x, given["kernel_sizes"].tolist(), given["strides"].tolist())


def _slice(given: Arguments) -> Tensor:
    x: Tensor = given["x"]
    count = x.ndim
    begins, ends = given["begin"].tolist(), given["end"].tolist()
    steps = given["stride"].tolist() if "stride" in given else [1] * count
    masks = {name: given[name].tolist() if name in given else [False] * count for name in ("begin_mask", "end_mask")}
    where = tuple(
        slice(None if masks["begin_mask"][i] else begins[i], None if masks["end_mask"][i] else ends[i], steps[i])
        for i in range(count)
    )
    return x[where]


def _split(given: Arguments) -> Sequence[Tensor]:
    x, axis = given["x"], int(given["axis"])
    sizes = given["split_sizes"].tolist() if "split_sizes" in given else x.shape[axis] // int(given["num_splits"])
    parts: Sequence[Tensor] = torch.split(x, sizes, axis)
    return parts


def _expanded(given: Arguments) -> Tensor:
    x: Tensor = given["x"]
    axes = [axis % (x.ndim + given["axes"].numel()) for axis in given["axes"].tolist()]
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


def _upsampled(given: Arguments) -> Tensor:
    factors = (float(given["scale_factor_height"]), float(given["scale_factor_width"]))
    return functional.interpolate(given["x"], scale_factor=factors, mode="nearest")


OPERATIONS: dict[str, Operation] = {
    "add": lambda given: given["x"] + given["y"],
    "cast": lambda given: given["x"].float(),  # rounded as its output says
    "concat": lambda given: torch.cat(given["values"], int(given["axis"])),
    "constexpr_affine_dequantize": _dequantized,
    "conv": _convolution,
    "expand_dims": _expanded,
    "fill_like": lambda given: torch.full_like(given["ref_tensor"], float(given["value"])),
    "leaky_relu": lambda given: functional.leaky_relu(given["x"], float(given["alpha"])),
    "matmul": lambda given: given["x"] @ given["y"],
    "max_pool": _max_pool,
    "mul": lambda given: given["x"] * given["y"],
    "real_div": lambda given: given["x"] / given["y"],
    "reduce_sum": lambda given: given["x"].sum(given["axes"].tolist(), keepdim=bool(given["keep_dims"])),
    "relu": lambda given: given["x"].relu(),
    "reshape": lambda given: given["x"].reshape(given["shape"].tolist()),
    "sigmoid": lambda given: given["x"].sigmoid(),
    "silu": lambda given: functional.silu(given["x"]),
    "slice_by_index": _slice,
    "softmax": lambda given: given["x"].softmax(int(given["axis"])),
    "split": _split,
    "squeeze": lambda given: given["x"].squeeze(tuple(given["axes"].tolist())),
    "sub": lambda given: given["x"] - given["y"],
    "transpose": lambda given: given["x"].permute(given["perm"].tolist()),
    "upsample_nearest_neighbor": _upsampled,
}
