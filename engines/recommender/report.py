"""What a training achieved, in words: the report that is printed, and the model card of somebody's own recommender."""

from collections.abc import Sequence

from engines.recommender.metrics import Metric
from engines.recommender.training import Trained


def text(trained: Trained) -> str:
    """The report as plain text; the same on every machine."""
    dataset, candidates = trained.dataset, trained.model.candidates
    learned = f"{_parameters(trained)} parameters, learned from {trained.lists} choices, last loss {trained.loss:.3f}"
    lines = [
        f"{_data(trained)}; the last one of {trained.measured_users} users held out",
        "and looked for among all items that its user had not chosen before:",
        "",
        *_table(trained.metrics, candidates),
        "",
        f"ranking network: {learned}",
        *(f"note: {note}" for note in dataset.notes),
    ]
    return "".join(f"{line}\n" for line in lines)


def card(trained: Trained, name: str) -> str:
    """A model card in Markdown."""
    report, candidates = text(trained), trained.model.candidates
    features = ", ".join(trained.model.table.names)
    kinds = len(trained.dataset.catalogue.kinds)
    return f"""# {name}

Recommends and ranks the items of its owner's catalogue: retrieval by user and item factors and by the order of choices
(`{name}_retrieval`), then a ranking network over {candidates} candidates.

## Origin

Trained by `headrace models train recommender`; nothing but the data below went in.

## Licence

That of the data, which this folder holds in `items.csv` and `interactions.csv`.

## Training data

{_data(trained)}.
Known of an item: {features}; {kinds} genres.

## Metrics

Measured with the last interaction of each user held out, served with all of them.

```
{report}```

## Limits

Items and users that came after the training are unknown to it until it is trained again (a history of known items
stands for a new user). It foresees what is chosen next, which is not the same as what would be liked most, and popular
items come up more often than rare ones.
"""


def _data(trained: Trained) -> str:
    dataset = trained.dataset
    return f"{len(dataset.catalogue)} items, {len(dataset.user_ids)} users, {len(dataset.choices)} interactions"


def _table(metrics: Sequence[Metric], candidates: int) -> list[str]:
    last = f"in the first {candidates}"
    rows = [f"{one.name:<38}  {one.recall:9.3f}  {one.ndcg:7.3f}  {one.retrieved:{len(last)}.3f}" for one in metrics]
    return [f"{'':<38}  recall@10  NDCG@10  {last}", *rows]


def _parameters(trained: Trained) -> int:
    return sum(weight.size + bias.size for weight, bias in trained.model.network.layers)
