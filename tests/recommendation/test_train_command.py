"""`headrace models train recommender` as a user runs it."""

import grpc
import pytest
from typer.testing import CliRunner

from cli.models import app
from headrace.recommendation.v1 import recommendation_pb2 as pb
from tests.recommendation import shop
from tests.recommendation.test_servicer import call
from tests.serving import serving

FILES = ("--interactions", "interactions.csv", "--items", "items.csv")


def train(*arguments):
    """The command in this process, which spares each test the imports."""
    return CliRunner().invoke(app, ["train", "recommender", *FILES, "--models", "models", *arguments])


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


async def test_a_csv_becomes_a_model_that_is_served(tmp_path):
    made = shop.make(tmp_path)
    done = train("--name", "things")
    assert done.exit_code == 0, done.stderr
    assert "things: trained in" in done.stdout
    assert "retrieval, then ranking network" in done.stdout
    assert "recall@10  NDCG@10" in done.stdout
    assert "things: learning factors, fold by fold" in done.stderr
    assert (tmp_path / "models/things/CARD.md").read_text().startswith("# things")
    user, history = next(iter(made.histories.items()))
    async with (
        serving("recommendation", tmp_path / "models") as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        answer = await call(channel, pb.RecommendRequest(user_id=user, exclude_seen=True))
        assert answer.model.name == "things"
        assert not {item.item_id for item in answer.items} & set(history)

    again = train("--name", "things")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert "models/things exists already: choose another --name" in again.stderr
    before = (tmp_path / "models/things/1/model.onnx").read_bytes()
    replaced = train("--name", "things", "--replace")
    assert replaced.exit_code == 0, replaced.stderr
    assert (tmp_path / "models/things/1/model.onnx").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["things", "things_retrieval"]


@pytest.mark.parametrize(
    ("name", "interactions", "words"),
    [
        ("x", "user_id,item_id\nu,\n", "interactions.csv, line 2, column 'item_id': is empty, must be an id"),
        ("x", "user_id,item_id\nu,a\n", "the interactions have 0 users with 3 or more different items"),
        ("../x", "user_id,item_id\nu,a\n", "'../x' is no model name"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(tmp_path, name, interactions, words):
    (tmp_path / "interactions.csv").write_text(interactions)
    (tmp_path / "items.csv").write_text("item_id\na\n")
    done = train("--name", name)
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_folder_that_training_did_not_make_is_never_replaced(tmp_path):
    shop.make(tmp_path)
    (tmp_path / "models/mine").mkdir(parents=True)
    done = train("--name", "mine", "--replace")
    assert done.exit_code == 1
    assert "models/mine was not made by 'headrace models train'" in done.stderr
