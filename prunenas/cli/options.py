"""The application, and the options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

from prunenas.training.recipe import RECIPES

app = typer.Typer(
    name="prunenas",
    help="Pruning as architecture search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

InputSize = Annotated[
    str | None,
    typer.Option(help="Of a NAME: channels,height,width.", show_default="the data's or family's"),
]
Classes = Annotated[
    int | None, typer.Option(help="Of a NAME: classes.", show_default="the data's or family's")
]
Width = Annotated[
    float | None, typer.Option(help="Of a NAME: multiplier of all widths.", show_default="1.0")
]
Depth = Annotated[
    int | None,
    typer.Option(help="Of a NAME that takes one, such as resnet.", show_default="the family's"),
]
Unknown = Annotated[
    str | None,
    typer.Option(
        help="Of a PLACE:NETWORK: refuse calls that no op describes, or freeze them as they are.",
        show_default="refuse",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        help="Of a PLACE:NETWORK: seconds that tracing may take.", min=0.1, show_default="60.0"
    ),
]
Pretrained = Annotated[
    bool,
    typer.Option(
        "--pretrained",
        help="Of a PLACE:NETWORK: look at its published weights.",
        show_default="train it here",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ... or auto.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of data sets.", show_default="PRUNENAS_DATA, or the user's cache"),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        help="Say nothing on stderr but errors and warnings.",
        show_default="tell the progress",
    ),
]
Tensorboard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Also write scalars into the run folder's tensorboard; needs the extra of that name.",
        show_default="only the log",
    ),
]
LARGEST_SEED = 2**63 - 1
Seed = Annotated[
    int, typer.Option(help="Seed of everything that is drawn.", min=0, max=LARGEST_SEED)
]
RecipeName = Annotated[str, typer.Option(help=f"Named recipe: {', '.join(RECIPES)}.")]
MethodRecipe = Annotated[
    str | None,
    typer.Option(
        help=f"Named recipe: {', '.join(RECIPES)}; paper where --epochs or --recipe-set is given.",
        show_default="the method's own",
    ),
]
Epochs = Annotated[
    int | None, typer.Option(help="Epochs instead of the recipe's.", show_default="the recipe's")
]
Data = Annotated[
    str, typer.Option(help="Data set: a name, folder:PATH, npz:FILE or module:function.")
]
DataIfNeeded = Annotated[
    str | None,
    typer.Option(
        help="As in train. Also tells a family's size.",
        show_default="digits, where images are needed",
    ),
]
SaveWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.safetensors", help="Also write the weights.", show_default="not written"
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="name=value: an option of the method. Repeatable.", show_default="none"
    ),
]
RecipeChanges = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe-set", help="name=value: a field of the recipe. Repeatable.", show_default="none"
    ),
]
