import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.nlp import transforms
from services.nlp.tokens import Tokens

INT64, INT32 = np.dtype(np.int64), np.dtype(np.int32)


def test_inputs_are_filled_up_each_in_its_way():
    texts = [Tokens([101, 7, 102], [0, 0, 1], cut=False), Tokens([101, 102], [0, 0], cut=False)]
    dtypes = {"input_ids": INT64, "attention_mask": INT32, "token_type_ids": INT64}
    made = transforms.inputs(texts, 4, dtypes, pad_id=1)
    assert made["input_ids"].tolist() == [[101, 7, 102, 1], [101, 102, 1, 1]]
    assert made["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert made["token_type_ids"].tolist() == [[0, 0, 1, 0], [0, 0, 0, 0]]
    assert {name: tensor.dtype for name, tensor in made.items()} == dtypes


def test_pooling():
    states = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    mean = transforms.pooled(states, [4, 2], "mean")
    np.testing.assert_allclose(mean, [states[0].mean(0), states[1, :2].mean(0)])
    np.testing.assert_array_equal(transforms.pooled(states, [4, 2], "cls"), states[:, 0])
    assert transforms.pooled(mean, [4, 2], "mean") is mean


def test_unit_vectors():
    vectors = transforms.unit(np.array([[3, 4], [0, 0], [1e-20, 0]], np.float32))
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0], [1, 0]], atol=1e-6)
    assert vectors.dtype == np.float32


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20))
def test_softmax_adds_up_and_keeps_the_order(scores):
    row = np.array([scores], np.float32)
    shares = transforms.activated(row, "softmax")[0]
    assert shares.sum() == pytest.approx(1.0, abs=1e-5)
    assert shares[int(np.argmax(row))] == shares.max()


def test_other_activations():
    row = np.array([[-1000.0, 0.0, 1000.0]], np.float32)
    np.testing.assert_allclose(transforms.activated(row, "sigmoid"), [[0, 0.5, 1]])
    np.testing.assert_array_equal(transforms.activated(row, "none"), row)


def test_zero_shot_follows_the_nearest_label_and_the_temperature():
    texts, labels = np.eye(2, dtype=np.float32), np.array([[1, 0], [0.6, 0.8]], np.float32)
    sharp, mild = (transforms.zero_shot(texts, labels, temperature) for temperature in (0.05, 1.0))
    assert sharp.argmax(1).tolist() == mild.argmax(1).tolist() == [0, 1]
    assert (sharp.max(1) > mild.max(1)).all()
    assert mild[0, 0] == pytest.approx(np.exp(1) / (np.exp(1) + np.exp(0.6)))


def test_the_best_come_first_and_equals_in_their_order():
    values = np.array([0.1, 0.7, 0.1, 0.7], np.float32)
    assert transforms.best(values, 3) == [1, 3, 0]
    assert transforms.best(values, 100) == [1, 3, 0, 2]
