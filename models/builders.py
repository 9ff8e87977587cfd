"""From a row of an architecture file to a layer: one small builder per module name, found in a registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from torch import nn

from models.architecture import Argument, nearest
from models.common import (
    C3,
    SPD,
    SPPF,
    Activation,
    BlockFactory,
    Bottleneck,
    Concat,
    Conv,
    Focus,
    Kernel,
    SPDConv,
    batch_norm,
    depthwise,
    plain_convolution,
)
from models.head import AnchorFreeDetect, BranchForm, Detect
from models.rare_layers import (
    SPP,
    BottleneckCSP,
    Contract,
    ConvTranspose,
    CrossConv,
    Expand,
    GhostBottleneck,
    GhostConv,
    MixConv2d,
    TransformerBlock,
)
from models.rows import BuiltLayer, RowArguments, RowContext, initial_anchors
from utils.user_error import UserError

Builder = Callable[[RowArguments, RowContext], BuiltLayer]


def _kernel(arguments: RowArguments, *, dilates: bool = True) -> Kernel:
    """Arguments ``size, stride, padding, groups, dilation`` of a convolution."""
    # Focus, which alone takes no dilation, is folded into one convolution of a square kernel.
    size = arguments.side("size") if dilates else arguments.integer("size", 1)
    stride = arguments.integer("stride", 1)
    padding, groups = arguments.optional_integer("padding"), arguments.integer("groups", 1)
    return Kernel(size, stride, padding, groups, arguments.integer("dilation", 1) if dilates else 1)


def _step(kernel: Kernel) -> int:
    return kernel.stride if isinstance(kernel.stride, int) else kernel.stride[0]


def _activation(arguments: RowArguments, context: RowContext) -> Activation:
    """A last argument ``act``: False leaves the activation out."""
    return context.activation if arguments.flag("act", True) else nn.Identity


def _strided(context: RowContext, module: nn.Module, channels: int, stride: int = 1) -> BuiltLayer:
    return BuiltLayer(module, channels, context.reduction * stride)


def _check_groups(context: RowContext, out: int, groups: int) -> None:
    if context.in_channels % groups or out % groups:
        raise UserError(
            f"{context.where}: {groups} groups divide neither {context.in_channels} nor {out} channels evenly"
        )


def _conv(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, kernel = context.width(arguments), _kernel(arguments)
    _check_groups(context, out, kernel.groups)
    conv = Conv(context.in_channels, out, kernel, _activation(arguments, context))
    return _strided(context, conv, out, _step(kernel))


def _focus(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    kernel = _kernel(arguments, dilates=False)
    focus = Focus(context.in_channels, out, kernel, _activation(arguments, context))
    return _strided(context, focus, out, 2 * _step(kernel))


def _spd(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    scale = arguments.integer("scale", 2, least=2)
    return _strided(context, SPD(scale), context.in_channels * scale**2, scale)


def _space_to_depth(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    """The authors' name of SPD(2); their argument is the dimension that the phases are joined along."""
    arguments.word("dimension", (1,), default=1)
    return _strided(context, SPD(2), context.in_channels * 4, 2)


def _spd_conv(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    size, scale = arguments.integer("size", 3), arguments.integer("scale", 2, least=2)
    if size % 2 == 0:
        raise arguments.wrong("size", size, "an odd number")
    return _strided(
        context, SPDConv(context.in_channels, out, size, scale, _activation(arguments, context)), out, scale
    )


def _bottleneck(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    shortcut, groups = arguments.flag("shortcut", True), arguments.integer("groups", 1)
    hidden = int(out * arguments.number("expansion", 0.5))
    return _strided(context, Bottleneck((context.in_channels, hidden, out), shortcut, groups, context.activation), out)


def _stage(context: RowContext, block: BlockFactory) -> BlockFactory:
    """``repeats`` blocks in a row."""
    return lambda hidden: nn.Sequential(*(block(hidden) for _ in range(context.repeats)))


def _c3(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, expansion, block = _csp_arguments(arguments, context)
    return _strided(context, C3(context.in_channels, out, _stage(context, block), expansion, context.activation), out)


def _bottleneck_csp(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, expansion, block = _csp_arguments(arguments, context)
    stage = BottleneckCSP(context.in_channels, out, _stage(context, block), expansion, context.activation)
    return _strided(context, stage, out)


def _csp_arguments(arguments: RowArguments, context: RowContext) -> tuple[int, float, BlockFactory]:
    """Output channels, expansion and the bottleneck of a cross-stage partial block."""
    out = context.width(arguments)
    shortcut, groups = arguments.flag("shortcut", True), arguments.integer("groups", 1)

    def block(hidden: int) -> nn.Module:
        return Bottleneck((hidden, hidden, hidden), shortcut, groups, context.activation)

    return out, arguments.number("expansion", 0.5), block


def _c3_ghost(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, expansion, _ = _csp_arguments(arguments, context)  # shortcut and groups have no meaning here

    def block(hidden: int) -> nn.Module:
        return GhostBottleneck(hidden, hidden, 3, 1, context.activation)

    return _strided(context, C3(context.in_channels, out, _stage(context, block), expansion, context.activation), out)


def _c3_transformer(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, expansion, _ = _csp_arguments(arguments, context)

    def inner(hidden: int) -> nn.Module:
        return TransformerBlock(hidden, 4, context.repeats)

    return _strided(context, C3(context.in_channels, out, inner, expansion, context.activation), out)


def _c3_spp(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, windows = context.width(arguments), arguments.sizes("windows", (5, 9, 13))

    def inner(hidden: int) -> nn.Module:
        return SPP(hidden, hidden, windows, context.activation)

    return _strided(context, C3(context.in_channels, out, inner, 0.5, context.activation), out)


def _c3_cross(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    shortcut, groups = arguments.flag("shortcut", True), arguments.integer("groups", 1)

    def block(hidden: int) -> nn.Module:
        return CrossConv((hidden, hidden, hidden), Kernel(3, 1, None, groups), shortcut, context.activation)

    expansion = arguments.number("expansion", 0.5)
    return _strided(context, C3(context.in_channels, out, _stage(context, block), expansion, context.activation), out)


def _spp(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, windows = context.width(arguments), arguments.sizes("windows", (5, 9, 13))
    return _strided(context, SPP(context.in_channels, out, windows, context.activation), out)


def _depthwise(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    size, stride = arguments.integer("size", 1), arguments.integer("stride", 1)
    kernel = depthwise(context.in_channels, out, size, stride, arguments.integer("dilation", 1))
    return _strided(context, Conv(context.in_channels, out, kernel, _activation(arguments, context)), out, stride)


def _ghost_conv(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    size, stride = arguments.integer("size", 1), arguments.integer("stride", 1)
    kernel = Kernel(size, stride, None, arguments.integer("groups", 1))
    ghost = GhostConv(context.in_channels, out, kernel, _activation(arguments, context))
    return _strided(context, ghost, out, stride)


def _ghost_bottleneck(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    size, stride = arguments.integer("size", 3), arguments.integer("stride", 1)
    if stride not in (1, 2):
        raise arguments.wrong("stride", stride, "1 or 2")
    if stride == 1 and out != context.in_channels:
        raise UserError(
            f"{context.where}: with stride 1 its {out} output channels must be its {context.in_channels} inputs"
        )
    return _strided(context, GhostBottleneck(context.in_channels, out, size, stride, context.activation), out, stride)


def _cross_conv(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    size, stride = arguments.integer("size", 3), arguments.integer("stride", 1)
    kernel = Kernel(size, stride, None, arguments.integer("groups", 1))
    hidden = int(out * arguments.number("expansion", 1.0))
    shortcut = arguments.flag("shortcut", False)
    cross = CrossConv((context.in_channels, hidden, out), kernel, shortcut, context.activation)
    return _strided(context, cross, out, stride)


def _mix_conv(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, sizes = context.width(arguments), arguments.sizes("sizes", (1, 3))
    stride, equal = arguments.integer("stride", 1), arguments.flag("equal_ch", True)
    return _strided(context, MixConv2d(context.in_channels, out, sizes, stride, equal=equal), out, stride)


def _contract(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    gain = arguments.integer("gain", 2)
    return _strided(context, Contract(gain), context.in_channels * gain**2, gain)


def _expand(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    gain = arguments.integer("gain", 2)
    if context.in_channels % gain**2:
        raise UserError(f"{context.where}: {context.in_channels} channels are no multiple of {gain**2}")
    return BuiltLayer(Expand(gain), context.in_channels // gain**2, context.reduction / gain)


def _conv_transpose(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out = context.width(arguments)
    size, stride = arguments.integer("size", 2), arguments.integer("stride", 2)
    kernel = Kernel(size, stride, arguments.integer("padding", 0, least=0))
    upsampling = ConvTranspose(context.in_channels, out, kernel, _activation(arguments, context))
    return BuiltLayer(upsampling, out, context.reduction / stride)


def _plain_transpose(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    return _bare_transpose(arguments, context, depth_wise=False)


def _depthwise_transpose(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    return _bare_transpose(arguments, context, depth_wise=True)


def _bare_transpose(arguments: RowArguments, context: RowContext, *, depth_wise: bool) -> BuiltLayer:
    """``nn.ConvTranspose2d``: arguments ``out, size, stride, padding, output_padding``."""
    out = context.width(arguments)
    size, stride = arguments.integer("size", 1), arguments.integer("stride", 1)
    padding = arguments.integer("padding", 0, least=0)
    extra = arguments.integer("output_padding", 0, least=0)
    groups = depthwise(context.in_channels, out, size).groups if depth_wise else 1
    module = nn.ConvTranspose2d(context.in_channels, out, size, stride, padding, extra, groups)
    return BuiltLayer(module, out, context.reduction / stride)


def _plain_conv(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    """``nn.Conv2d`` with bias: arguments ``out, size, stride, padding, dilation, groups``, torch's defaults."""
    out = context.width(arguments)
    size, stride = arguments.side("size"), arguments.integer("stride", 1)
    padding, dilation = arguments.integer("padding", 0, least=0), arguments.integer("dilation", 1)
    kernel = Kernel(size, stride, padding, arguments.integer("groups", 1), dilation)
    _check_groups(context, out, kernel.groups)
    module = plain_convolution(context.in_channels, out, kernel, bias=arguments.flag("bias", True))
    return _strided(context, module, out, stride)


def _plain_norm(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    """``nn.BatchNorm2d`` over whatever comes in; a number of channels may be repeated."""
    if len(arguments):
        arguments.word("channels", (context.in_channels,))
    return _strided(context, batch_norm(context.in_channels), context.in_channels)


def _max_pool(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    size = arguments.integer("size", 2)
    stride = arguments.integer("stride", size)
    padding = arguments.integer("padding", 0, least=0)
    if 2 * padding > size:
        raise arguments.wrong("padding", padding, f"at most half of the window, {size // 2},")
    return _strided(context, nn.MaxPool2d(size, stride, padding), context.in_channels, stride)


def _zero_pad(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    margins = arguments.margins("margins")
    return _strided(context, nn.ZeroPad2d(margins), context.in_channels)


def _sppf(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    out, size = context.width(arguments), arguments.integer("size", 5)
    return _strided(context, SPPF(context.in_channels, out, size, context.activation), out)


def _concat(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    arguments.word("dimension", (1,), default=1)
    if len(set(context.reductions)) > 1:
        strides = ", ".join(map(str, context.reductions))
        raise UserError(f"{context.where}: maps of different strides ({strides}) cannot be joined")
    return _strided(context, Concat(1), sum(context.channels))


def _upsample(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    arguments.word("size", (None,), default="None")
    scale = arguments.integer("scale", least=1)
    mode = arguments.word("mode", ("nearest", "bilinear", "nearest-exact", "bicubic"), default="nearest")
    module = nn.Upsample(None, scale_factor=scale, mode=str(mode))
    return BuiltLayer(module, context.in_channels, context.reduction / scale)


def _detect(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    arguments.word("nc", ("nc", context.architecture.class_count), default="nc")
    if len(arguments):
        arguments.word("anchors", ("anchors", context.architecture.anchors), default="anchors")
    anchors_px = initial_anchors(context)
    head = Detect(context.architecture.class_count, context.channels, _level_strides(context), anchors_px)
    return BuiltLayer(head, 0, Fraction(max(head.strides)))


def _anchor_free_detect(arguments: RowArguments, context: RowContext) -> BuiltLayer:
    """Arguments ``nc`` and, if they are not YOLOv5u's, ``width, depth`` (see ``BranchForm``)."""
    arguments.word("nc", ("nc", context.architecture.class_count), default="nc")
    width = None if arguments.skips() else context.width(arguments)
    form = BranchForm(width, arguments.integer("depth", 2, least=0))
    strides, classes = _level_strides(context), context.architecture.class_count
    head = AnchorFreeDetect(classes, context.channels, strides, context.activation, form)
    return BuiltLayer(head, 0, Fraction(max(head.strides)))


def _level_strides(context: RowContext) -> list[int]:
    """Pixels per cell of each level of a head."""
    strides: list[int] = []
    for reduction in context.reductions:
        if reduction.denominator != 1 or (strides and reduction <= strides[-1]):
            found = ", ".join(map(str, context.reductions))
            raise UserError(
                f"{context.where}: levels must go from the finest to the coarsest; their strides are {found}"
            )
        strides.append(int(reduction))
    return strides


BUILDERS: dict[str, Builder] = {
    "Conv": _conv,
    "DWConv": _depthwise,
    "Focus": _focus,
    "SPD": _spd,
    "space_to_depth": _space_to_depth,
    "SPDConv": _spd_conv,
    "Bottleneck": _bottleneck,
    "BottleneckCSP": _bottleneck_csp,
    "C3": _c3,
    "C3Ghost": _c3_ghost,
    "C3SPP": _c3_spp,
    "C3TR": _c3_transformer,
    "C3x": _c3_cross,
    "SPP": _spp,
    "SPPF": _sppf,
    "GhostConv": _ghost_conv,
    "GhostBottleneck": _ghost_bottleneck,
    "CrossConv": _cross_conv,
    "MixConv2d": _mix_conv,
    "Concat": _concat,
    "Contract": _contract,
    "Expand": _expand,
    "ConvTranspose": _conv_transpose,
    "DWConvTranspose2d": _depthwise_transpose,
    "nn.BatchNorm2d": _plain_norm,
    "nn.Conv2d": _plain_conv,
    "nn.ConvTranspose2d": _plain_transpose,
    "nn.MaxPool2d": _max_pool,
    "nn.Upsample": _upsample,
    "nn.ZeroPad2d": _zero_pad,
    "Detect": _detect,
    "AnchorFreeDetect": _anchor_free_detect,
}
# The number of the row goes inside these blocks.
USES_REPEATS = frozenset({"BottleneckCSP", "C3", "C3Ghost", "C3TR", "C3x"})
HEADS = ("Detect", "AnchorFreeDetect")
JOINS_MAPS = frozenset({"Concat", *HEADS})


def build_layer(arguments: Sequence[Argument], module: str, context: RowContext) -> tuple[BuiltLayer, str]:
    """The layer of one row and its arguments as a line of text. UserError names file, row and value."""
    if module not in BUILDERS:
        raise UserError(f"{context.where}: unknown module '{module}'{nearest(module, BUILDERS)}")
    if module not in JOINS_MAPS and len(context.channels) != 1:
        raise UserError(f"{context.where}: from names {len(context.channels)} layers; {module} takes one")
    copies = 1 if module in USES_REPEATS else context.repeats
    layers = []
    for _ in range(copies):
        taken = RowArguments(arguments, context.where)
        try:
            layers.append(BUILDERS[module](taken, context))
        except (ValueError, RuntimeError) as error:  # what torch thinks of sizes that do not go together
            raise UserError(f"{context.where}: {' '.join(str(error).split())}") from error
        taken.done()
    first = layers[0]
    if copies == 1:
        return first, ", ".join(taken.taken)
    if first.channels != context.in_channels or first.reduction != context.reduction:
        raise UserError(
            f"{context.where}: repeated {copies} times, but it turns {context.in_channels} channels into "
            f"{first.channels}; only a layer that keeps its input's shape can be repeated"
        )
    stacked = nn.Sequential(*(layer.module for layer in layers))
    return BuiltLayer(stacked, first.channels, first.reduction), ", ".join(taken.taken)
