"""`headrace call`: one call through the gateway, its answer as a table or JSON, and what it cost."""

import typer

from cli.lazy_group import LazyGroup, Subcommand


class _Calls(LazyGroup):
    subcommands = {  # noqa: RUF012  # the base declares it for the class
        "vision.classify": Subcommand("cli.call.vision", "Label images."),
        "vision.embed": Subcommand("cli.call.vision", "Turn images into vectors."),
        "vision.read_text": Subcommand("cli.call.vision", "Read the printed text of images."),
        "nlp.embed": Subcommand("cli.call.nlp", "Turn texts into vectors."),
        "nlp.classify": Subcommand("cli.call.nlp", "Label texts, with your labels or the model's."),
        "nlp.rerank": Subcommand("cli.call.nlp", "Order documents by relevance to a query."),
        "recommendation.recommend": Subcommand("cli.call.recommendation", "Recommend items to somebody."),
        "recommendation.rank": Subcommand("cli.call.recommendation", "Order given items for somebody."),
        "recommendation.similar_items": Subcommand("cli.call.recommendation", "Find the neighbours of an item."),
        "speech.recognize": Subcommand("cli.call.speech", "Write down what is said in a recording."),
        "speech.detect_speech": Subcommand("cli.call.speech", "Find where somebody speaks in a recording."),
        "speech.stream": Subcommand("cli.call.speech_stream", "Send a recording as if spoken now."),
    }


app = typer.Typer(cls=_Calls, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def call() -> None:
    """Call a running mesh."""
