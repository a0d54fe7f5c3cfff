"""`portfolio-ops show`: one artifact in full."""

import json

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode
from portfolio_ops.moment import local, utc
from portfolio_ops.store import catalogue


@click.command("show")
@click.argument("reference", metavar="ID")
@click.pass_obj
def command(context: Context, reference: str) -> ExitCode:
    """Show one artifact in full: `latest`, an ID or its beginning, or a file's name."""
    site = context.site()
    artifact = catalogue.find(catalogue.scan(site.backups, site.name), reference)
    data = {
        **present.artifact_data(artifact),
        "site": artifact.metadata.site,
        "content_sha256": artifact.metadata.content.sha256,
        "details": artifact.metadata.details,
    }

    def human() -> None:
        content = artifact.metadata.content
        rows = [
            ("id", artifact.id),
            ("kind", artifact.metadata.kind.value),
            ("file", str(artifact.path)),
            ("taken", f"{local(artifact.taken)} ({utc(artifact.taken)})"),
            ("size", f"{artifact.bytes:,} bytes, {content.bytes:,} decoded"),
            ("sha-256", f"{content.sha256} (decoded)"),
            ("open with", f"zstd -d < {artifact.path.name}"),
        ]
        rows += [
            (key, value if isinstance(value, str) else json.dumps(value))
            for key, value in sorted(artifact.metadata.details.items())
        ]
        width = max(len(key) for key, _ in rows)
        for key, value in rows:
            print(f"{key:{width}} {present.printable(value)}")

    return context.finish("show", data, human)
