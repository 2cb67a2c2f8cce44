"""The commands' registry."""

from __future__ import annotations

import importlib
from dataclasses import is_dataclass

import pytest

from jobs.commands import report
from jobs.commands.command import by_options
from jobs.commands.registry import COMMANDS, named


@pytest.mark.parametrize("name", COMMANDS)
def test_each_names_what_runs_it(name: str) -> None:
    command = COMMANDS[name]
    assert all(is_dataclass(each) for each in command.options)
    if command.runs:
        module, _, function = command.runs.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_options_say_whose_they_are() -> None:
    assert len(by_options(COMMANDS)) == sum(len(each.options) for each in COMMANDS.values())


def test_a_second_of_one_name_is_refused() -> None:
    with pytest.raises(ValueError, match="two commands report"):
        named([report.COMMAND, report.COMMAND])
