"""Command-line options made from the fields of a job, so that names, help and defaults have one source."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from s2sr_qgis.core.errors import InputError

FLAGS = {
    "output": ("--output", "-o"),
    "models": ("--model", "-m"),
    "measures": ("--measure", "-m"),
    "json_file": ("--json",),
    "network_options": ("--network-option",),
}
"""Fields whose option is not simply the field's name."""


@dataclass(frozen=True)
class JobOption:
    """One field of a job as an argument or option; ``parent`` is the field that holds it where it is nested."""

    name: str
    field: FieldInfo
    parent: str | None
    metavar: str | None

    @property
    def type(self) -> Any:
        """The field's type without ``| None``."""
        annotation = self.field.annotation
        if get_origin(annotation) in (Union, types.UnionType):
            (annotation,) = [part for part in get_args(annotation) if part is not type(None)]
        return annotation

    @property
    def is_mapping(self) -> bool:
        """Whether values come as key=value."""
        return get_origin(self.type) is dict

    @property
    def flags(self) -> tuple[str, ...]:
        """What an option may be called."""
        return FLAGS.get(self.name, ("--" + self.name.replace("_", "-"),))

    @property
    def flag(self) -> str:
        """What the user types."""
        return self.metavar or self.flags[0]

    def parameter(self) -> inspect.Parameter:
        """The parameter that Typer reads."""
        text = self.field.description or ""
        annotation = list[str] if self.is_mapping else _for_typer(self.type)
        info: Any
        if self.metavar:
            info = typer.Argument(metavar=self.metavar, help=text, show_default=False)
        else:
            flags = self.flags
            if annotation is bool:
                flags = (f"{flags[0]}/--no-{flags[0][2:]}",)
            metavar = "KEY=VALUE" if self.is_mapping else None
            required = self.field.is_required()
            info = typer.Option(*flags, metavar=metavar, help=f"{text}  [required]" if required else text)
        default = None if self.field.is_required() else self.field.get_default(call_default_factory=True)
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if default in ([], {}) else default,
            annotation=Annotated[annotation | None if default is None else annotation, info],
        )

    def value(self, given: Any) -> Any:
        """The field's value from what Typer gives."""
        if self.is_mapping:
            return dict(_pair(text, self.flag) for text in given)
        if self.type == list[str] and not self.metavar and "band" in self.name:
            return [name.strip() for text in given for name in text.split(",") if name.strip()]
        if isinstance(given, list | tuple):
            return [part.value if isinstance(part, Enum) else part for part in given]
        return given


def _for_typer(annotation: Any) -> Any:
    """A field's type as Typer takes it: it knows lists of an Enum, but none of a Literal."""
    (part,) = get_args(annotation) if get_origin(annotation) is list else (None,)
    if get_origin(part) is not Literal:
        return annotation
    return list[Enum("Choice", {word: word for word in get_args(part)})]  # type: ignore[misc]


def job_options(job_type: type[BaseModel], arguments: Mapping[str, str]) -> Iterator[JobOption]:
    """The options of a job, arguments first; ``arguments``: metavar of each field that has a position."""
    names = [*arguments, *(name for name in job_type.model_fields if name not in arguments and name != "job")]
    for name in names:
        field = job_type.model_fields[name]
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for inner, inner_field in field.annotation.model_fields.items():
                yield JobOption(inner, inner_field, name, None)
        else:
            yield JobOption(name, field, None, arguments.get(name))


def job_command(
    job_type: type[BaseModel],
    arguments: Mapping[str, str],
    execute: Callable[[Callable[[], dict[str, Any]], bool], None],
) -> Callable[..., None]:
    """A Typer command for a job: every field an option, plus ``--config`` and ``--debug``.

    ``execute`` gets a function that collects the values that were given into a dictionary (it raises `InputError`), and
    whether to show tracebacks.
    """
    options = list(job_options(job_type, arguments))

    def collect(ctx: typer.Context, config: Path | None, values: dict[str, Any]) -> dict[str, Any]:
        data = read_job_file(config) if config else {}
        wanted = job_type.model_fields["job"].default
        if data.setdefault("job", wanted) != wanted:
            raise InputError(f"{config} describes a job '{data['job']}', not '{wanted}'.")
        for option in options:
            source = ctx.get_parameter_source(option.name)
            if source is None or source.name == "DEFAULT":
                continue
            target = data.setdefault(option.parent, {}) if option.parent else data
            value = option.value(values[option.name])
            target[option.name] = {**target.get(option.name, {}), **value} if option.is_mapping else value
        missing = [o.flag for o in options if o.field.is_required() and o.parent is None and not data.get(o.name)]
        if missing:
            raise InputError(f"{' and '.join(missing)} must be given, here or in a --config file.")
        return data

    def command(ctx: typer.Context, config: Path | None, debug: bool, **values: Any) -> None:
        execute(lambda: collect(ctx, config, values), debug)

    extra = {
        "config": (
            Path | None,
            None,
            typer.Option("--config", help="YAML or JSON file of the job; options given here win."),
        ),
        "debug": (bool, False, typer.Option("--debug", help="Show the traceback of an error.")),
    }
    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [option.parameter() for option in options]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])
        for name, (kind, default, info) in extra.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = job_type.__doc__
    return command


def read_job_file(path: Path) -> dict[str, Any]:
    """A job as a dictionary from a YAML or JSON file. Raises `InputError`."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is neither YAML nor JSON; write one key and value a line.") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} describes no job: it must hold keys and values such as 'job: train'.")
    return data


def _pair(text: str, flag: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"'{text}' is not KEY=VALUE; write {flag} width=64.")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(
            f"The value of '{text}' cannot be read; write a number, true, false or a list: {flag} width=64."
        ) from error
