import numpy as np
import onnxruntime as ort
import pytest

from engines.recommender import dataset, factors, folders, graphs, metrics, network, pairs, report, tower, training
from engines.recommender.split import leave_last_out
from tests.recommendation import shop


def test_metrics_of_known_ranks():
    recall, ndcg = metrics.recall_and_ndcg(np.array([0, 2, 9, 10, 500]))
    assert recall == pytest.approx(3 / 5)
    assert ndcg == pytest.approx((1 + 1 / 2 + 1 / np.log2(11)) / 5)


def test_the_place_of_an_item_among_scores():
    scores = np.array([[3.0, 1.0, 2.0, 2.0], [0.0, 0.0, 0.0, -np.inf]])
    assert metrics.rank_of(scores, np.array([3, 1])).tolist() == [2, 1]


def test_a_history_is_read_latest_first_and_weighs_less_with_age(trained):
    table = trained.model.table
    history = np.full((2, tower.LENGTH), -1)
    history[0, :2] = [4, 9]
    rows = tower.users_of(history, table)
    layout = tower.Layout.of(table)
    np.testing.assert_allclose(rows[0, layout.place("all taste")], table.taste[4] + table.taste[9])
    np.testing.assert_allclose(
        rows[0, layout.place("next after the last")], table.earlier[4] + 0.5 * table.earlier[9], atol=1e-7
    )
    assert rows[0, -1] == pytest.approx(np.log(3))
    assert not rows[1].any()


def test_windows_hold_what_came_before(trained):
    choices = trained.known
    window = tower.windows(choices, np.array([1]), choices.starts[[1]] + 2)[0]
    assert window[:3].tolist() == [choices.of(1)[1], choices.of(1)[0], -1]


def test_the_graphs_compute_what_was_measured(trained):
    model = trained.model
    retrieval, ranking = (ort.InferenceSession(make(model)) for make in (graphs.retrieval, graphs.ranking))
    histories = tower.full_windows(trained.known, np.arange(12))
    histories[3], histories[4, 1:] = -1, -1
    user, scores, similar = retrieval.run(None, {"history": histories})
    rows = tower.users_of(histories, model.table)
    np.testing.assert_allclose(user, rows, atol=1e-4)
    np.testing.assert_allclose(scores, model.retrieval.scores(rows, model.table), atol=1e-4)
    assert similar[4].argmax() == histories[4, 0]
    assert not similar[3].any()

    candidates = np.random.default_rng(0).integers(0, shop.ITEMS, (12, 7))
    logits = model.network.logits(pairs.features(rows, model.table, candidates))
    feed = {"user": np.repeat(user, 7, axis=0), "item": candidates.reshape(-1, 1)}
    expected = 1 / (1 + np.exp(model.network.middle - logits))
    np.testing.assert_allclose(ranking.run(None, feed)[0].reshape(12, 7), expected, atol=1e-4)


def test_numbers_beyond_the_catalogue_count_as_no_item(trained):
    session = ort.InferenceSession(graphs.retrieval(trained.model))
    history = np.full((2, tower.LENGTH), -1)
    history[:, 0] = 5
    history[1, 1:3] = [shop.ITEMS, 10**15]
    user, scores, _ = session.run(None, {"history": history})
    np.testing.assert_array_equal(user[0], user[1])
    np.testing.assert_array_equal(scores[0], scores[1])


def test_the_whole_model_beats_popularity_and_factors(trained):
    found = {metric.name: metric for metric in trained.metrics}
    popularity, alone = found["popularity"], found["user and item factors"]
    whole = found["retrieval, then ranking network"]
    assert whole.recall > 2 * popularity.recall
    assert whole.ndcg > alone.ndcg > popularity.ndcg


def test_the_same_data_gives_the_same_files_and_figures(own_shop, trained):
    steps = []
    again = training.train(
        dataset.read(own_shop.interactions, own_shop.items), lambda what, done, of: steps.append((what, done, of))
    )
    assert folders.own_folders(again, "shop") == folders.own_folders(trained, "shop")
    assert [step for step in steps if step[0].startswith("learning")] == [
        ("learning factors, fold by fold", done, 4) for done in (1, 2, 3, 4)
    ]
    assert ("training the ranking network", network.EPOCHS, network.EPOCHS) in steps


def test_what_is_held_out_reaches_neither_factors_nor_histories(own_shop):
    found = dataset.read(own_shop.interactions, own_shop.items)
    kept = training.train(found, lambda *_: None, keep_held_out=True)
    split = leave_last_out(found.choices)
    assert len(kept.known) == len(found.choices) - len(split.users)
    expected = factors.fit(found, split.train)
    np.testing.assert_array_equal(kept.model.table.taste, expected.taste)
    rows = folders.ranking_files(kept)["interactions.csv"].decode().splitlines()
    assert len(rows) == 1 + len(kept.known)


def test_ratings_times_and_genres_may_be_missing(tmp_path):
    made = shop.make(tmp_path, users=14, ratings=False)
    made.items.write_text("item_id\n" + "".join(f"{shop.item(place)}\n" for place in range(shop.ITEMS)))
    lines = [f"{user},{name}\n" for user, names in made.histories.items() for name in names]
    made.interactions.write_text("user_id,item_id\n" + "".join(lines))
    found = training.train(dataset.read(made.interactions, made.items), lambda *_: None)
    assert found.model.table.names == ("log popularity",)
    ort.InferenceSession(graphs.retrieval(found.model))
    ort.InferenceSession(graphs.ranking(found.model))


def test_the_report_names_what_was_measured(trained):
    words = report.text(trained)
    assert f"{shop.ITEMS} items, 80 users" in words
    whole = trained.metrics[-1]
    assert f"{whole.recall:.3f}" in words
    assert "last loss" in words
    assert report.text(trained) in report.card(trained, "shop")


def test_the_network_learns_what_tells_the_first_candidate():
    random = np.random.default_rng(3)
    features = random.standard_normal((600, 12, 3))
    features[:, 0, 1] += 3.0
    lists = network.Lists(features, np.zeros((600, 12)))
    losses = []
    found = network.train(lists, lambda _epoch, _epochs, loss: losses.append(loss))
    assert losses[-1] < 0.5 * losses[0]
    fresh = random.standard_normal((200, 12, 3))
    fresh[:, 0, 1] += 3.0
    assert (found.logits(fresh).argmax(axis=1) == 0).mean() > 0.8


def test_candidates_stand_for_as_many_items_as_are_open():
    """The softmax over a sample, weighed, estimates the sum over a whole catalogue."""
    logits = np.random.default_rng(1).standard_normal(60)
    features = logits[None, :, None]
    weights = np.log(np.full((1, 60), 1.0))
    loss, gradient = network._softmax_loss(features[..., 0] + weights)
    assert loss == pytest.approx(-np.log(np.exp(logits[0]) / np.exp(logits).sum()))
    assert gradient.sum() == pytest.approx(0.0, abs=1e-12)


def test_the_least_data_that_is_taken_makes_a_model(tmp_path):
    """Ten users with three items each, twenty items in all, one instant, no title."""
    rows = [f"u{user},{shop.item((2 * user + turn) % 20)},7\n" for user in range(10) for turn in range(3)]
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    (tmp_path / "items.csv").write_text("item_id\n" + "".join(f"{shop.item(place)}\n" for place in range(20)))
    found = training.train(dataset.read(tmp_path / "interactions.csv", tmp_path / "items.csv"), lambda *_: None)
    history = np.full((1, tower.LENGTH), -1)
    history[0, 0] = 3
    user, scores, _ = ort.InferenceSession(graphs.retrieval(found.model)).run(None, {"history": history})
    feed = {"user": np.repeat(user, 20, axis=0), "item": np.arange(20).reshape(-1, 1)}
    ranked = ort.InferenceSession(graphs.ranking(found.model)).run(None, feed)[0]
    assert np.isfinite(scores).all()
    assert np.isfinite(ranked).all()


def test_a_feature_that_never_varied_says_nothing():
    random = np.random.default_rng(4)
    features = random.standard_normal((64, 6, 2))
    features[:, :, 1] = 3.0
    found = network.train(network.Lists(features, np.zeros((64, 6))), lambda *_: None)
    other = features.copy()
    other[:, :, 1] = 50.0
    np.testing.assert_allclose(found.logits(other), found.logits(features), atol=1e-3)
