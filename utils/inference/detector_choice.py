"""Which detector a command line asks for: files, arithmetic, views of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from utils.config.weights_by_name import find_weights
from utils.inference.ensemble import Ensemble
from utils.inference.graph_runtimes import OPENVINO_SUFFIX
from utils.inference.model_backends import DetectionBackend, TorchBackend, load_backend
from utils.inference.test_time_augmentation import AugmentedBackend
from utils.runtime.device import requested_precision
from utils.user_error import UsageError


class ArithmeticFlags(Protocol):
    """What ``val.py`` and ``detect.py`` both ask of a .pt file."""

    @property
    def precision(self) -> str: ...
    @property
    def half(self) -> bool: ...
    @property
    def augment(self) -> bool: ...


class DetectorFlags(ArithmeticFlags, Protocol):
    """The flags that choose a detector."""

    @property
    def weights(self) -> tuple[str, ...]: ...
    @property
    def dnn(self) -> bool: ...


def open_detector(
    flags: DetectorFlags, device: torch.device, fallback_names: Callable[[], tuple[str, ...]]
) -> DetectionBackend:
    """The detector in the flags' file, or the ensemble of those in several; ``fallback_names`` as in ``load_backend``.

    Raises:
        UserError: no such file, or a damaged one.
        UsageError: a flag that does not go with the kind of file.
    """
    backends = [_opened(find_weights(name), flags, device, fallback_names) for name in flags.weights]
    return backends[0] if len(backends) == 1 else Ensemble(backends, flags.weights)


def refuse_torch_flags(flags: ArithmeticFlags, file: Path, further: Mapping[str, bool]) -> None:
    """UsageError for flags that only a .pt file has a use for; ``further`` ones by name, with whether they are set."""
    # OpenVINO leaves the arithmetic to the one who opens the file.
    free = ("auto", "fp32", "bf16") if file.name.endswith(OPENVINO_SUFFIX) else ("auto", "fp32")
    for name, wanted in (
        ("--half", flags.half),
        (f"--precision {flags.precision}", flags.precision not in free),
        ("--augment", flags.augment),
        *further.items(),
    ):
        if wanted:
            raise UsageError(f"{name} --weights {file}: only for .pt files; an exported file is as it is")


def torch_backends(backend: DetectionBackend) -> Sequence[TorchBackend]:
    """The PyTorch detectors that a detector consists of."""
    if isinstance(backend, AugmentedBackend):
        return (backend.backend,)
    if isinstance(backend, Ensemble):
        return tuple(own for member in backend.backends for own in torch_backends(member))
    return (backend,) if isinstance(backend, TorchBackend) else ()


def _opened(
    file: Path, flags: DetectorFlags, device: torch.device, fallback_names: Callable[[], tuple[str, ...]]
) -> DetectionBackend:
    precision = requested_precision(flags.precision, flags.half, device)
    backend = load_backend(file, device, fallback_names=fallback_names, dnn=flags.dnn, precision=precision)
    if not isinstance(backend, TorchBackend):
        refuse_torch_flags(flags, file, {})
        return backend
    return AugmentedBackend(backend) if flags.augment else backend
