"""One command of `python -m jobs`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# A parser that was filled, and the values that a command line gave it by their names: options.
Finish = Callable[[argparse.ArgumentParser, dict[str, Any]], Any]


@dataclass(frozen=True)
class Command:
    """What a command takes, and what does it.

    name, help, description: for people. epilog: below the help's options.
    options: the frozen dataclasses that it makes of its command line, of which one is its own. One
        with a field `archive` is handed to a process that runs the archive's code, with its
        fields `device`, `precision`, `registry` and `public_keys`; one without runs in this one.
    runs: "module:function", imported when it runs: function(options), in the process that runs the
        archive's code function(options, explainer); it returns the exit code. "" for what
        `jobs.launch` and `jobs.worker` do themselves.
    add_arguments: adds the options' fields to a parser.
    finish: the options of what was given; they are its first class's fields unless it says
        otherwise.
    """

    name: str
    help: str
    description: str
    options: tuple[type, ...]
    runs: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    finish: Finish | None = None
    epilog: str | None = None

    def options_of(self, parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> Any:
        """The options of what a command line gave."""
        if self.finish is not None:
            return self.finish(parser, dict(values))
        return self.options[0](**values)


def by_options(commands: Mapping[str, Command]) -> dict[str, tuple[Command, type]]:
    """The command of each class of options, and that class, by the class's name."""
    return {kind.__name__: (each, kind) for each in commands.values() for kind in each.options}
