"""`python -m notifier preview`: how every e-mail looks, without sending any."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console()


def preview(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("notifier-preview"),
    kind: Annotated[str | None, typer.Option(help="One kind, such as limit.reached; without it, all.")] = None,
    product: Annotated[
        str, typer.Option(envvar="ARAGORA_PRODUCT_NAME", help="What the product is called.")
    ] = "Aragora",
) -> None:
    """Write every e-mail with realistic contents, as HTML, text and message, and a page that shows them all."""
    from notifier import preview as previewing  # noqa: PLC0415 - the other commands start without templates
    from notifier.rendering import Stationery  # noqa: PLC0415 - see above

    stationery = Stationery(
        product=product, sender="billing@aragora.ai", app="https://app.example", public_url="https://api.example"
    )
    try:
        written = previewing.write(stationery, out, kind)
    except KeyError as error:
        console.print(str(error.args[0]), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(f"Wrote {len(written)} files; open {written[-1]}", highlight=False, soft_wrap=True)
