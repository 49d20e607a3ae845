"""`s2sr`: one command for each job of `s2sr_qgis.core.jobs`. What a job does not offer, no command does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from s2sr_qgis.core import jobs
from s2sr_qgis.core.leaving import leave
from s2sr_qgis.core.processors import bound_native_threads
from s2sr_qgis.core.variables import drop_foreign

from .options import job_command, read_job_file


class _Application(typer.Typer):
    """The commands; called, they have the process to themselves and set it up."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .console import end_streams, make_printable, name_files_in_utf8, open_streams

        open_streams()
        name_files_in_utf8()
        make_printable()
        drop_foreign()
        bound_native_threads()
        status: Any = 1
        try:
            result = super().__call__(*args, **kwargs)
            status = 0
        except SystemExit as end:
            status = end.code
            raise
        finally:
            end_streams()
            leave(status if isinstance(status, int) else int(status is not None))
        return result


app = _Application(
    name="s2sr",
    help="Super-resolution of Sentinel-2: all bands at 10 m.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dataset = typer.Typer(no_args_is_help=True)
app.add_typer(dataset, name="dataset", help="Make datasets to train on.")


def _execute(collect: Callable[[], dict[str, Any]], debug: bool) -> None:
    from .console import console
    from .report import show
    from .session import FAILURE, run_job, stop

    done = run_job(collect, debug)
    try:
        show(*done)
    except OSError as error:
        text = f"The job is done, but its result could not be printed ({error.strerror or error})."
        raise stop(console(stderr=True), text, FAILURE) from error


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"s2sr {version('s2sr')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Super-resolution of Sentinel-2: all bands at 10 m."""


dataset.command("sharpening")(job_command(jobs.CreateSharpeningDatasetJob, {"scenes": "SCENE..."}, _execute))
app.command("simulate")(job_command(jobs.SimulateJob, {"image": "IMAGE"}, _execute))
dataset.command("cross-sensor")(job_command(jobs.CreateCrossSensorDatasetJob, {}, _execute))
# An area west of Greenwich starts with a minus, which is no option.
app.command("search", context_settings={"ignore_unknown_options": True})(
    job_command(jobs.SearchScenesJob, {"area": "AREA"}, _execute)
)
app.command("train")(job_command(jobs.TrainJob, {"datasets": "DIR..."}, _execute))
app.command("export")(job_command(jobs.ExportJob, {"run": "RUN"}, _execute))
app.command("import-model")(job_command(jobs.ImportModelJob, {"source": "SOURCE"}, _execute))
app.command("adapt")(job_command(jobs.AdaptJob, {"model": "MODEL", "scene": "SCENE"}, _execute))
app.command("super-resolve")(job_command(jobs.SuperResolveJob, {"scene": "SCENE"}, _execute))
app.command("evaluate")(job_command(jobs.EvaluateJob, {"model": "MODEL", "scene": "SCENE"}, _execute))
app.command("similarity")(job_command(jobs.SimilarityJob, {"reference": "REFERENCE", "image": "IMAGE"}, _execute))
app.command("check")(job_command(jobs.CheckEnvironmentJob, {}, _execute))


@app.command("models")
def models() -> None:
    """List the bundled models."""
    from .report import show_models

    show_models()


@app.command("run")
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A job as YAML or JSON, with the key 'job'.")],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Run any job from a file."""
    _execute(lambda: read_job_file(file), debug)


if __name__ == "__main__":
    app()
