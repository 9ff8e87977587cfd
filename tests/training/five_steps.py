"""Five training steps, alone or as one of several processes: what a test of distributed training starts.

python -m tests.training.five_steps DATA OUT [FLAGS of train.py]

Batch norms stay in eval mode, as statistics over a part of a batch differ from those of the whole. Writes losses (5, 3)
and the gradients of every step.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from utils.config.command_line import parse_command_line
from utils.config.train_flags import TrainConfig
from utils.runtime.process_ranks import joined_processes
from utils.runtime.seeds import repeatable_arithmetic
from utils.training.one_epoch import LossMeter, train_one_epoch
from utils.training.session import new_run
from utils.verbs.train import DETECTION

STEPS = 5


class Enough(Exception):
    """All steps are taken."""


class Progress:
    """Stands for the bar; ends the epoch."""

    count = 0

    def advance(self, steps: int, note: str) -> None:
        self.count += steps
        if self.count == STEPS:
            raise Enough


def main() -> None:
    out = Path(sys.argv[1])
    config = parse_command_line(TrainConfig, sys.argv[2:], prog="five_steps", description="")
    losses: list[torch.Tensor] = []
    gradients: list[dict[str, torch.Tensor]] = []
    add = LossMeter.add

    def recorded(self: LossMeter, report: torch.Tensor, epoch: int, step: int) -> None:
        losses.append(report[:-1].clone())
        add(self, report, epoch, step)

    LossMeter.add = recorded  # type: ignore[method-assign]
    with joined_processes(config.device, config.local_rank) as ranks:
        repeatable_arithmetic(ranks.device)
        run = new_run(DETECTION, config, ranks)
        learner = run.learner
        for module in learner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
                module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,misc]

        def before_step(*_: Any) -> None:
            named = learner.model.named_parameters()
            gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

        learner.optimizer.register_step_pre_hook(before_step)
        batches = run.task.batches(0, run.state.class_ap)
        stop: Any = type("NoStop", (), {"signal_number": None})
        try:
            train_one_epoch(learner, batches, 0, Progress(), stop)
        except Enough:
            steps = {"losses": torch.stack(losses), "gradients": gradients}
            torch.save(steps, out.with_name(f"{out.name}{ranks.rank}"))


if __name__ == "__main__":
    main()
