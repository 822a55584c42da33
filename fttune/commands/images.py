"""Commands on images: which there are, decoding them, how far they lie from a source."""

from typing import Annotated, Literal

import typer

from fttune.commands.options import AsJson, Root, Size, Target


def datasets(as_json: AsJson = False) -> None:
    """The datasets of the catalog; any folder of class folders is one more."""
    from fttune.describe import dataset_rows
    from fttune.terminal import print_rows

    print_rows(dataset_rows(), as_json=as_json)


def prepare(
    target: Target,
    root: Root = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="How the set is read, which part of it.")
    ] = None,
    fetch: Annotated[bool, typer.Option("--download", help="Fetch it first, where torchvision can.")] = False,
    image_size: Size = None,
    resize: Annotated[Literal["crop", "warp"], typer.Option(help="Short side and centre, or to a square.")] = "crop",
    skip_corrupt: Annotated[bool, typer.Option(help="Leave out images that cannot be decoded.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a dataset's layout, count it, and decode it into the store; goes on where it was interrupted."""
    from fttune.data.catalog import locate
    from fttune.inventory import download, found, prepared, remarks, summary
    from fttune.terminal import print_facts, say
    from fttune.tree import read_options

    options = read_options(option or ())
    if fetch:
        download(locate(target, root=root, options=options), root)
    row = locate(target, root=root, options=options)
    facts = found(row, row.source())
    say(summary(facts))
    for line in remarks(facts):
        say(f"{row.name}: {line}")
    try:
        facts |= prepared(row, image_size=image_size, resize=resize, skip_corrupt=skip_corrupt)
    except KeyboardInterrupt:
        say("interrupted; what is decoded is kept, and the same command goes on")
        raise typer.Exit(130) from None
    print_facts(facts, as_json=as_json)


def distance(
    target: Target,
    source: Annotated[str | None, typer.Option(help="The images to measure from, named as a target is.")] = None,
    backbone: Annotated[str, typer.Option(help="Whose features are compared.")] = "efficientnet_lite0",
    image_size: Size = None,
    metric: Annotated[
        str,
        typer.Option(help="cosine, mmd, svm or cnn, of which the last two need --source; logme and hscore are scores."),
    ] = "all",
    images: Annotated[int, typer.Option(min=0, help="Of either side at most, balanced over classes; 0: all.")] = 2000,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """How far a target's images lie from those a backbone was trained on, with its band in the table."""
    from fttune.describe import Measurement, measured, measured_lines
    from fttune.terminal import print_json, print_lines

    asked = Measurement(
        target=target, source=source, backbone=backbone, image_size=image_size, images=images or None, root=root
    )
    facts = measured(asked, metric)
    if as_json:
        print_json(facts)
    else:
        print_lines(measured_lines(facts))
