"""The shell commands of README and docs: found, checked, and made small enough to run.

    python -m tests.documentation.commands        prints those that need what a test machine has not, and why

A block ```sh or ```bash holds one command a line. Code between backticks in a sentence or a table counts when it begins
as a command does. `<!-- needs: GPU, COCO -->` on the line before a block, a table or a paragraph marks what the
commands in it need; a device, a stream or a camera that a command names speaks for itself. Such commands are checked
but not run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.shared_data import REPOSITORY

NEEDS = re.compile(r"\s*<!-- needs: (.+?) -->\s*")
FENCE = re.compile(r"```(\w*)")
SHELL = ("sh", "bash", "shell", "console")
INLINE = re.compile(r"`((?:python3?|torchrun|make) [^`]+|[A-Z_]+=\S+ make [^`]+)`")
KNOWN_NEEDS = frozenset(
    {"GPU", "internet", "COCO", "camera", "screen", "standard input", "ncnn", "LiteRT", "CoreML", "trackers"}
)


@dataclass(frozen=True, slots=True)
class DocCommand:
    """One command as it stands in a page. ``words``: as the shell splits it, environment settings left out."""

    file: str
    line: int
    words: tuple[str, ...]
    needs: tuple[str, ...]
    in_block: bool

    @property
    def text(self) -> str:
        return shlex.join(self.words)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def script(self) -> str:
        """``train.py``, ``-m models``, ``make``: what is called; of torchrun the script that it starts."""
        words = self.words
        if words[0] == "torchrun":
            return next(word for word in words if word.endswith(".py"))
        if words[0] in ("python", "python3"):
            return f"-m {words[2]}" if words[1] == "-m" else words[1]
        return words[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows the script."""
        if self.words[0] in ("python", "python3"):
            return self.words[3:] if self.words[1] == "-m" else self.words[2:]
        if self.words[0] == "torchrun":
            return self.words[self.words.index(self.script) + 1 :]
        return self.words[1:]


def pages() -> list[Path]:
    """Every page whose commands are held to the program."""
    return [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def all_commands() -> list[DocCommand]:
    return [command for page in pages() for command in commands_in(page.name, page.read_text(encoding="utf-8"))]


def commands_in(file: str, text: str) -> list[DocCommand]:
    """The commands of a page, in its order."""
    found: list[DocCommand] = []
    language: str | None = None
    needs: tuple[str, ...] = ()
    pending = ""
    for number, line in enumerate(text.splitlines(), start=1):
        fence = FENCE.match(line.strip())
        if language is not None:
            if line.strip() == "```":
                language, needs = None, ()
            elif language in SHELL:
                pending += line.strip()
                if pending.endswith("\\"):
                    pending = pending[:-1]
                    continue
                found += _commands(file, number, pending.removeprefix("$ "), needs, in_block=True)
                pending = ""
        elif fence is not None:
            language = fence[1] or "text"
        elif mark := NEEDS.fullmatch(line):
            needs = tuple(part.strip() for part in mark[1].split(","))
        else:
            for match in INLINE.finditer(line):
                found += _commands(file, number, match[1], needs, in_block=False)
            if not line.strip():
                needs = ()
    return found


def _commands(file: str, line: int, text: str, needs: tuple[str, ...], *, in_block: bool) -> Iterator[DocCommand]:
    """The commands of a line; several may be joined by && or ; or |."""
    words = shlex.split(text, comments=True)
    start = 0
    for end in [i for i, word in enumerate(words) if word in ("&&", ";", "|")] + [len(words)]:
        own = words[start:end]
        while own and re.fullmatch(r"[A-Z_]+=.*", own[0]):  # VENV=path make demo
            own = own[1:]
        if own:
            found = DocCommand(file, line, tuple(own), needs, in_block)
            yield replace(found, needs=tuple(dict.fromkeys((*needs, *_evident_needs(found)))))
        start = end + 1


def _evident_needs(command: DocCommand) -> Iterator[str]:
    """What a command cannot do without, by its own words."""
    flags = dict(zip(command.arguments, command.arguments[1:], strict=False))
    source, device = flags.get("--source", ""), flags.get("--device", "cpu")
    if device[0].isdigit() or device.startswith("cuda") or "engine" in command.arguments or ".engine" in command.text:
        yield "GPU"
    if source.startswith("http"):
        yield "internet"
    elif "://" in source or source.isdecimal() or source.endswith(".streams"):
        yield "camera"
    elif source.startswith("screen"):
        yield "screen"
    elif source == "-":
        yield "standard input"


def made_by_make(target: str, recipe: Sequence[str]) -> list[DocCommand]:
    """The Python commands among the lines that ``make -n TARGET`` prints."""
    commands = [
        command
        for line in "\n".join(recipe).replace("\\\n", " ").splitlines()
        if "/python " in line or line.startswith("python ")
        for command in _commands(f"Makefile ({target})", 0, line, (), in_block=True)
    ]
    return [replace(one, words=("python", *one.words[1:])) for one in commands if one.words[0].endswith("python")]


def main() -> None:
    for command in all_commands():
        if command.needs:
            print(f"{command.place}: needs {', '.join(command.needs)}: {command.text}")


if __name__ == "__main__":
    main()
