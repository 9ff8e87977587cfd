"""``train.py`` with one thing changed:  python altered_train.py CHANGE FLAGS..."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from tests.documentation.workspace import InterruptAfterAnEpoch, Interruption
from utils.config.command_line import parse_command_line
from utils.config.train_flags import TrainConfig
from utils.geometry.records import Batch
from utils.runtime.console_log import start_console_log
from utils.verbs.train import train_detector


def main(change: str, flags: list[str]) -> None:
    moved = Batch.on

    def images_left_behind(self: Batch, device: torch.device) -> Batch:
        return replace(moved(self, device), images=self.images.cpu().float() / 255)

    def wait_for_the_device(self: Batch, device: torch.device) -> Batch:
        batch = moved(self, device)
        assert float(batch.images.amax()) > 0
        return batch

    config = parse_command_line(TrainConfig, flags, prog="train.py", description="")
    start_console_log()
    if change == "stopped after an epoch":
        try:
            train_detector(config, (InterruptAfterAnEpoch(),))
        except Interruption:
            return
    Batch.on = {  # type: ignore[method-assign]
        "images left behind": images_left_behind,
        "a wait for the device": wait_for_the_device,
    }[change]
    train_detector(config)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
