"""Commands of `fettle`: one file each, here by name."""

from __future__ import annotations

import typer

from fettle.cli import (
    canary,
    catalog,
    ci,
    compare,
    crossfit,
    deploy,
    doctor,
    gc,
    init,
    lineage,
    migrate,
    predict,
    report,
    run,
    serve,
    service,
    stage,
    targets,
    ui,
    verify,
    why,
    worker,
)

app = typer.Typer(
    help="Trim a pretrained model until it fits: a small, fast, gated release from your data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would cost a third of its time
)
for command in (
    run.run,
    report.report,
    serve.serve,
    predict.predict,
    ui.ui,
    why.why,
    lineage.lineage,
    verify.verify,
    compare.compare,
    crossfit.crossfit,
    catalog.catalog,
    deploy.deploy,
    worker.worker,
    doctor.doctor,
    gc.gc,
    init.init,
    migrate.migrate,
):
    app.command()(command)
app.command(hidden=True)(stage.stage)
app.command(hidden=True)(worker.execute)
app.add_typer(targets.app, name="targets")
app.add_typer(canary.app, name="canary")
app.add_typer(ci.app, name="ci")
app.add_typer(service.app, name="service")
