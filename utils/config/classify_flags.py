"""Settings of the verbs in ``classify/``: flags with YOLOv5's names, meanings and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import shared_flags
from utils.config.command_line import flag
from utils.config.run_flags import MOST_EPOCHS, RunConfig
from utils.config.shared_flags import IMGSZ_ALIASES, LARGEST_BATCH, LONGEST_SIDE
from utils.user_error import UsageError

OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSProp")
DATA_HELP = (
    "folder with train/ and val/ or test/, one folder of images per class in each; or cifar10, cifar100, "
    "tiny-imagenet, imagenette160, ..., downloaded if it is not in ../datasets"
)


SMALLEST_SIDE = 8  # pixels; MNIST has 28


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyTrainConfig(RunConfig):
    """Settings of ``classify/train.py``."""

    model: str = flag(
        "yolov5s-cls.pt",
        "network: resnet18-spd, resnet18, resnet50-spd, resnet50, yolov5n-cls, yolov5n-spd-cls, ..., a "
        "torchvision name with or without -spd; or a .pt file to start from",
        group="Model",
    )
    weights: str = flag("", ".pt file from which a network named by --model takes what fits", group="Model")
    pretrained: str = flag(
        "True",
        "False takes only the architecture of a .pt file",
        group="Model",
        choices=("True", "False"),
        lone_value="True",
    )
    shortcut: str = flag(
        "strided",
        "first shortcut of each stage of an SPD ResNet: 1x1 convolution of stride 2, as the authors have it, or SPD",
        group="Model",
        choices=("strided", "spd"),
    )
    stem: str = flag(
        "full",
        "stem of a plain ResNet: 3x3 convolution at full resolution, or 7x7 of stride 2",
        group="Model",
        choices=("full", "strided"),
    )
    cutoff: int | None = flag(
        None, "layers of a YOLOv5 classifier, its head included; default 10", group="Model", at_least=2
    )
    dropout: float | None = flag(
        None, "probability of the network's dropout layers", group="Model", at_least=0, at_most=0.95
    )

    data: str = flag("imagenette160", DATA_HELP, group="Data")
    imgsz: int = flag(
        224,
        "side of the square images, pixels",
        group="Data",
        aliases=IMGSZ_ALIASES,
        at_least=SMALLEST_SIDE,
        at_most=LONGEST_SIDE,
    )
    batch_size: int = flag(64, "images per batch over all processes", group="Data", at_least=1, at_most=LARGEST_BATCH)
    cache: str | None = flag(None, "keep decoded images in memory", group="Data", choices=("ram",), lone_value="ram")

    hyp: str = flag(
        "data/hyps/hyp.classify.yaml",
        "recipe YAML, for flags that are not given",
        group="Recipe",
    )
    epochs: int = flag(10, "epochs; 0 only writes the start weights", group="Recipe", at_least=0, at_most=MOST_EPOCHS)
    patience: int = flag(
        0, "stop after this many epochs without a better top-1; 0 never stops", group="Recipe", at_least=0
    )
    optimizer: str = flag("Adam", "optimizer", group="Recipe", choices=OPTIMIZERS)
    lr0: float = flag(0.001, "initial learning rate", group="Recipe", at_least=1e-7, at_most=10)
    decay: float = flag(5e-5, "weight decay", group="Recipe", at_least=0, at_most=1)
    label_smoothing: float = flag(0.1, "label smoothing epsilon", group="Recipe", at_least=0, at_most=0.5)

    verbose: bool = flag(False, "print the accuracy of every class at the end", group="Output")
    project: str = flag("runs/train-cls", "folder of runs", group="Output")

    def __post_init__(self) -> None:
        if self.model.endswith(".pt") and self.weights:
            raise UsageError(f"--model {self.model} --weights {self.weights}: both are files to start from; name one")

    @property
    def fitness_is(self) -> str:
        return "top-1 accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class _EvaluatedModel:
    """Flags of the verbs that use a trained classifier."""

    imgsz: int | None = flag(
        None,
        "side of the square images, pixels; by default the file's, else 224",
        group="Data",
        aliases=IMGSZ_ALIASES,
        at_least=SMALLEST_SIDE,
        at_most=LONGEST_SIDE,
    )
    device: str = shared_flags.device()
    half: bool = flag(False, "a .pt file's network in fp16 (CUDA)", group="Run")
    dnn: bool = flag(False, "run an .onnx file in OpenCV's DNN module", group="Run")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it exists", group="Output")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyValConfig(_EvaluatedModel):
    """Settings of ``classify/val.py``."""

    weights: str = flag("yolov5s-cls.pt", "model file: .pt, .torchscript, .onnx, *_openvino_model", group="Model")
    data: str = flag("imagenette160", DATA_HELP, group="Data")
    batch_size: int = flag(128, "images per batch", group="Data", at_least=1, at_most=LARGEST_BATCH)
    workers: int = flag(8, "threads that load images; 0 loads between batches", group="Data", at_least=0)
    verbose: str = flag(
        "True", "print the accuracy of every class", group="Output", choices=("True", "False"),
        lone_value="True",
    )  # fmt: skip
    project: str = flag("runs/val-cls", "folder of runs", group="Output")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyPredictConfig(_EvaluatedModel):
    """Settings of ``classify/predict.py``."""

    weights: str = flag("yolov5s-cls.pt", "model file: .pt, .torchscript, .onnx, *_openvino_model", group="Model")
    source: str = flag("data/images", "image, video, folder, glob, or text list of them", group="Data")
    recursive: bool = shared_flags.recursive()
    vid_stride: int = flag(1, "take every n-th frame of a video", group="Data", at_least=1)
    save_txt: bool = flag(False, "write the five most likely classes of each image to a text file", group="Output")
    nosave: bool = flag(False, "write no images", group="Output")
    project: str = flag("runs/predict-cls", "folder of runs", group="Output")


# Flags of YOLOv5's classify/predict.py that do nothing there, or belong to what is not here.
REFUSED_PREDICT_FLAGS = {
    "--augment": "a classifier takes the middle square of each image once; YOLOv5 ignores the flag",
    "--visualize": "feature maps of classifiers are not drawn; YOLOv5 ignores the flag",
    "--update": "weights files are never rewritten",
    "--view-img": "there is no window; the images are in the run's folder",
    "--data": "the classes are in the weights file",
}
