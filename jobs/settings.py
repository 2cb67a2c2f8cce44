"""Settings of `jobs explain`: flags over the environment over a YAML file over defaults.

They are made from the arguments themselves: what a flag takes and refuses, the environment and the
file take and refuse.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import reprlib
from collections import Counter
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from archives.errors import UsageError, shortened
from jobs.commands.shared_arguments import Several

PREFIX = "WHYBOX_"
MOST_PROBLEMS = 5
# An address with a password, a word that goes before secrets, a long run that has letters and
# digits (but no path): what a setting should not hold, and a log should not show.
SECRETS = re.compile(
    r"://[^/\s]*@|secret|passw|token|credential|private|api.?key"
    r"|(?=[\w+=-]*[0-9])(?=[\w+=-]*[A-Za-z])[\w+=-]{16,}",
    re.IGNORECASE,
)


def settings(
    actions: Mapping[str, argparse.Action], flags: Mapping[str, Any], config: str | None
) -> dict[str, Any]:
    """The values of what was given, by name.

    actions: the argument of each name. flags: what the command line gave, as it was parsed.
    config: the YAML file, or None. The environment is WHYBOX_NAME: lists as JSON, or a single text;
    what is empty there, or null in the file, is not given. Variables of other names are others'.
    Raises UsageError, which names each place, what was expected and, unless it looks like a
    secret, what came.
    """
    file = {} if config is None else read_yaml(config)

    class Base(BaseSettings):
        model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid")

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                init_settings,
                _Environment(settings_cls, actions),
                InitSettingsSource(settings_cls, file),
            )

    fields: dict[str, Any] = {
        name: (Annotated[Any, BeforeValidator(partial(_value, action))], None)
        for name, action in actions.items()
    }
    model = create_model("Settings", __base__=Base, **fields)
    try:
        found = model(**flags)
    except ValidationError as error:
        problems = [
            _problem(each, _place(str(each["loc"][0]), flags, config), actions)
            # What is unknown first: it may be why others are missing.
            for each in sorted(error.errors(include_url=False), key=lambda each: each["type"])
        ]
        more = len(problems) - MOST_PROBLEMS
        shown = problems[:MOST_PROBLEMS] + [f"and {more} more"] * (more > 0)
        raise UsageError("; ".join(shown)) from error
    given = {name: getattr(found, name) for name in found.model_fields_set}
    return {name: value for name, value in given.items() if value is not None}


class _Environment(EnvSettingsSource):
    """WHYBOX_NAME; a list of texts may be JSON."""

    def __init__(
        self, settings_cls: type[BaseSettings], actions: Mapping[str, argparse.Action]
    ) -> None:
        super().__init__(settings_cls)
        self.actions = actions

    def prepare_field_value(
        self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool
    ) -> Any:
        several = isinstance(self.actions[field_name], Several)
        if several and isinstance(value, str) and value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                return value  # a name may begin so, too
        return value


def _value(action: argparse.Action, given: Any) -> Any:
    """A value as the argument has it. Raises ValueError, "expected ...", without what came."""
    if given is None or isinstance(given, tuple):  # only the command line makes tuples
        return given
    if isinstance(action, argparse.BooleanOptionalAction):
        return _truth(given)
    try:
        if isinstance(action, Several):
            return action.convert(_texts(given, action.numbers))
        if action.type is None:
            return _chosen(action, given)
        assert callable(action.type)
        return action.type(_text(given, numbers=True))
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error).partition(", got ")[0]) from None


def _truth(given: Any) -> bool:
    truths = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    found = truths.get(str(given).lower()) if isinstance(given, (bool, int, str)) else None
    if found is None:
        raise ValueError("expected true or false")
    return found


def _chosen(action: argparse.Action, given: Any) -> str:
    text = _text(given)
    if action.choices is not None and text not in action.choices:
        raise ValueError(f"expected one of {', '.join(action.choices)}")
    return text


def _texts(given: Any, numbers: bool) -> list[str]:
    """One or a list."""
    several = given if isinstance(given, list) else [given]
    if not several:
        raise ValueError("expected one or several, and not an empty list")
    return [_text(each, numbers) for each in several]


def _text(given: Any, numbers: bool = False) -> str:
    """YAML reads no as false, and 07 as 7: only numbers may stand for their text, where they are
    meant."""
    if isinstance(given, str):
        return given
    if numbers and isinstance(given, (int, float)) and not isinstance(given, bool):
        return str(given)
    raise ValueError("expected a number" if numbers else "expected text (in quotes)")


def _problem(error: Any, place: str, actions: Mapping[str, Any]) -> str:
    """One of pydantic's errors in words."""
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][0])
        near = difflib.get_close_matches(name.replace("-", "_"), actions, 1)
        known = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(actions)}"
        return f"{place}: there is no such setting; {known}"
    return f"{place}: {error['ctx']['error']}, got {_shown(error['input'])}"


def _shown(value: Any) -> str:
    """A value for a message; of what may be a secret its kind alone."""
    text = reprlib.repr(value)
    if SECRETS.search(str(value) if isinstance(value, str) else text):
        return f"{'text' if isinstance(value, str) else type(value).__name__} that may be secret"
    return text


def _place(name: str, flags: Mapping[str, Any], config: str | None) -> str:
    """Where the value came from that counts."""
    if name in flags:
        return f"--{name.replace('_', '-')}"
    variable = f"{PREFIX}{name}".upper()
    if any(each.upper() == variable and value for each, value in os.environ.items()):
        return variable
    return f"{shortened(str(config))}: {shortened(name)}"


def read_yaml(path: str) -> dict[str, Any]:
    """The file's keys and values."""
    name = shortened(path)
    if "://" in path:
        raise UsageError(f"--config: expected a file of this machine, got {name}: copy it here")
    try:
        with open(path, encoding="utf-8-sig") as file:
            found = yaml.load(file, _Loader)
    except OSError as error:
        raise UsageError(f"--config: {name} cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{name}{line}: expected plain YAML; {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Not its text, which may hold what the file does.
        raise UsageError(
            f"{name}: expected plain YAML in UTF-8 ({type(error).__name__})"
        ) from error
    if found is None:  # an empty file
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UsageError(
            f"{name}: expected the flags' names with values, such as 'batch_size: 16', got"
            f" {_shown(found)}"
        )
    return found


class _Loader(yaml.SafeLoader):
    """Of a key that is there twice YAML's own loader takes the last, and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and names[key.value] > 1:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {shortened(key.value)} is there twice",
                    problem_mark=key.start_mark,
                )
        return super().construct_mapping(node, deep)
