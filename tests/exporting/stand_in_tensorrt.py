"""What of TensorRT's interface is used here, acted out by ONNX Runtime on the CPU.

It knows nothing of GPUs; what it shows is that an engine is built from the right graph with the right limits and that
tensors reach it and come back by name, shape and address. An engine is a JSON line, then the ONNX model.
"""

from __future__ import annotations

import ctypes
import enum
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

__version__ = "10.0.0"


class Logger:
    ERROR, VERBOSE = 1, 4

    def __init__(self, level: int) -> None:
        self.level = level


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class BuilderFlag(enum.Enum):
    TF32 = 0


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


def nptype(kind: Any) -> Any:
    """Types are NumPy's already."""
    return kind


class OnnxParser:
    def __init__(self, network: SimpleNamespace, logger: Logger) -> None:
        self.network = network
        self.num_errors = 1

    def parse_from_file(self, path: str) -> bool:
        with open(path, "rb") as file:  # noqa: PTH123 - a text path, as in the interface
            self.network.graph = file.read()
        return not self.network.refuses_graphs

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "unsupported operator")


class Profile:
    def set_shape(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
        self.shapes = [list(smallest), list(best), list(largest)]


class Config:
    def __init__(self) -> None:
        self.pools: dict[MemoryPoolType, int] = {}
        self.profile: Profile | None = None
        self.cleared: list[BuilderFlag] = []

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.pools[pool] = size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.cleared.append(flag)

    def add_optimization_profile(self, profile: Profile) -> None:
        self.profile = profile


class Builder:
    refuses_graphs = False  # set by a test
    builds_nothing = False
    last_config: Config  # for a test to look at

    def __init__(self, logger: Logger) -> None:
        pass

    def create_network(self, flags: int) -> SimpleNamespace:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return SimpleNamespace(name="", graph=b"", refuses_graphs=self.refuses_graphs)

    def create_builder_config(self) -> Config:
        Builder.last_config = Config()
        return Builder.last_config

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: SimpleNamespace, config: Config) -> bytes | None:
        if self.builds_nothing:
            return None
        limits = config.profile.shapes if config.profile else None
        return json.dumps({"name": network.name, "limits": limits}).encode() + b"\n" + bytes(network.graph)


class Runtime:
    def __init__(self, logger: Logger) -> None:
        pass

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        return Engine(data) if data.startswith(b"{") else None


class Engine:
    def __init__(self, data: bytes) -> None:
        head, graph = data.split(b"\n", 1)
        facts = json.loads(head)
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.name: str = facts["name"]
        self.tensors = {t.name: t for t in (*self.session.get_outputs(), *self.session.get_inputs())}
        fixed = self.get_tensor_shape("images")
        self.limits = facts["limits"] or [fixed] * 3
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        name: str = list(self.tensors)[index]
        return name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return {"tensor(float)": np.float32, "tensor(float16)": np.float16}[self.tensors[name].type]

    def get_tensor_shape(self, name: str) -> list[int]:
        return [side if isinstance(side, int) else -1 for side in self.tensors[name].shape]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return [list(shape) for shape in self.limits]

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        smallest, _, largest = self.engine.limits
        return all(low <= side <= high for low, side, high in zip(smallest, shape, largest, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (answer,) = self.engine.session.run([name], {"images": np.zeros(self.shape, np.float32)})
        return tuple(answer.shape)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        images = self._memory("images", self.shape)
        for output in self.engine.session.get_outputs():
            (answer,) = self.engine.session.run([output.name], {"images": images})
            self._memory(output.name, answer.shape)[...] = answer
        return True

    def _memory(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The float32 tensor at an address."""
        pointer = ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape=shape)
