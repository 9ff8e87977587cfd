"""Layers whose parameters training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence

from models.yolo import DetectionModel
from utils.user_error import UsageError


def freeze_layers(model: DetectionModel, wanted: Sequence[str]) -> tuple[str, ...]:
    """Stop the gradient of the wanted layers' parameters; the names of those parameters.

    Args:
        model: layers are counted as in its YAML.
        wanted: one number ``N`` for the layers 0 to N - 1 (``0`` for none); several numbers for those layers; or
            names as in a checkpoint, whole up to a point: ``model.24``, ``model.0.conv``.

    Raises:
        UsageError: no such layer, or nothing would be left to train.
    """
    if len(wanted) == 1 and wanted[0].isdigit():
        _existing_layer(model, int(wanted[0]) - 1, wanted[0])
        prefixes = [f"model.{layer}" for layer in range(int(wanted[0]))]
    else:
        prefixes = [_prefix(model, text) for text in wanted]
    names = [name for name, _ in model.named_parameters()]
    frozen = {name for name in names for prefix in prefixes if name.startswith(f"{prefix}.") or name == prefix}
    if len(frozen) == len(names):
        raise UsageError(f"--freeze {' '.join(wanted)}: nothing would be left to train")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return tuple(name for name in names if name in frozen)


def _existing_layer(model: DetectionModel, layer: int, text: str) -> None:
    if layer >= len(model.model):
        raise UsageError(f"--freeze {text}: the model has {len(model.model)} layers")


def _prefix(model: DetectionModel, text: str) -> str:
    if text.isdigit():
        _existing_layer(model, int(text), text)
        return f"model.{text}"
    if not any(name == text or name.startswith(f"{text}.") for name, _ in model.named_parameters()):
        raise UsageError(f"--freeze {text}: no parameter is called so; names are such as model.0.conv or model.24")
    return text
