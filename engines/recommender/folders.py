"""A trained recommender as the two model folders that serve it: the ranking model, and the retrieval that it needs."""

import csv
import io
from collections.abc import Iterable, Sequence

from engines.recommender import graphs, report
from engines.recommender.dataset import Catalogue, Choices, Floats
from engines.recommender.names import INTERACTIONS_FILE, ITEMS_FILE, ORIGIN, REPORT_FILE, retrieval_name
from engines.recommender.training import Trained


def ranking_files(trained: Trained) -> dict[str, bytes]:
    """The files of the ranking model's folder, but for manifest and card."""
    dataset = trained.dataset
    return {
        "1/model.onnx": graphs.ranking(trained.model),
        ITEMS_FILE: items_csv(dataset.catalogue, trained.trend),
        INTERACTIONS_FILE: interactions_csv(dataset.catalogue, dataset.user_ids, trained.known),
        REPORT_FILE: report.text(trained).encode(),
    }


def retrieval_files(trained: Trained) -> dict[str, bytes]:
    """The files of the retrieval model's folder, but for manifest and card."""
    return {"1/model.onnx": graphs.retrieval(trained.model)}


def items_csv(catalogue: Catalogue, trend: Floats) -> bytes:
    """The catalogue as it is served: the order of lines numbers the items; `trend` 0..1 orders what is trending."""
    rows = zip(catalogue.ids, catalogue.titles, (f"{value:.6f}" for value in trend), strict=True)
    return _csv(("item_id", "title", "trend"), rows)


def interactions_csv(catalogue: Catalogue, user_ids: Sequence[str], choices: Choices) -> bytes:
    """Who chose what, each user's choices oldest first."""
    rows = ((name, catalogue.ids[item]) for user, name in enumerate(user_ids) for item in choices.of(user))
    return _csv(("user_id", "item_id"), rows)


def own_folders(trained: Trained, name: str) -> dict[str, dict[str, bytes]]:
    """Both folders, whole, of a recommender trained on somebody's own data; by name."""
    summary = f"recommender of {len(trained.dataset.catalogue)} items, trained on its owner's interactions"
    card = report.card(trained, name).encode()
    return {
        retrieval_name(name): {
            **retrieval_files(trained),
            "model.toml": _retrieval_manifest(name).encode(),
            "CARD.md": card,
        },
        name: {
            **ranking_files(trained),
            "model.toml": _ranking_manifest(name, summary, trained.model.candidates).encode(),
            "CARD.md": card,
        },
    }


def _ranking_manifest(name: str, summary: str, candidates: int) -> str:
    return f'''name = "{name}"
service = "recommendation"
tasks = ["recommend", "rank", "similar_items"]
backend = "auto"
summary = "{summary}"
origin = "{ORIGIN}"
licence = "that of its data"

[recommender]
items = "{ITEMS_FILE}"
interactions = "{INTERACTIONS_FILE}"
retrieval = "{retrieval_name(name)}"
candidates = {candidates}

[batching]
max_rows = 1024
max_queue_rows = 32768

[instances]
count = 1
threads = 1
'''


def _retrieval_manifest(name: str) -> str:
    return f'''name = "{retrieval_name(name)}"
service = "recommendation"
tasks = ["tensor"]
backend = "auto"
summary = "retrieval of the recommender {name}: histories to users and scores of all items"
origin = "{ORIGIN}"
licence = "that of its data"

[batching]
max_rows = 32
max_queue_rows = 1024

[instances]
count = 1
threads = 1
'''


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().encode()
