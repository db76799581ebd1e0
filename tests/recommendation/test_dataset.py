import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.recommender import dataset
from engines.recommender.csv_tables import DatasetError
from engines.recommender.split import leave_last_out

ITEMS = 'item_id,title,genres\na,Alpha (1999),x|y\nb,"Beta, the second",y\nc,Gamma,\n'
INTERACTIONS = "user_id,item_id,rating,timestamp\nu,a,5,30\nu,b,4,10\nv,c,1,20\nu,c,3,20\n"


def read(tmp_path, interactions=INTERACTIONS, items=ITEMS):
    for name, content in (("interactions.csv", interactions), ("items.csv", items)):
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    return dataset.read(tmp_path / "interactions.csv", tmp_path / "items.csv")


def test_choices_are_ordered_by_user_and_time(tmp_path):
    found = read(tmp_path)
    assert found.catalogue.ids == ("a", "b", "c")
    assert found.catalogue.titles == ("Alpha (1999)", "Beta, the second", "Gamma")
    assert found.catalogue.kinds == ("x", "y")
    np.testing.assert_array_equal(found.catalogue.genres, [[1, 1], [0, 1], [0, 0]])
    np.testing.assert_array_equal(found.catalogue.years, [1999, np.nan, np.nan])
    assert found.user_ids == ("u", "v")
    assert [found.choices.of(user).tolist() for user in (0, 1)] == [[1, 2, 0], [2]]
    assert found.choices.ratings.tolist() == [4, 3, 5, 1]
    assert (found.has_ratings, found.has_times, found.notes) == (True, True, ())


def test_without_times_the_order_of_lines_counts(tmp_path):
    found = read(tmp_path, "user_id,item_id\nu,c\nu,a\nu,b\n")
    assert found.choices.of(0).tolist() == [2, 0, 1]
    assert (found.has_ratings, found.has_times) == (False, False)


def test_what_spreadsheets_write_is_read(tmp_path):
    interactions = (
        '\ufeffUser_ID , ITEM_ID,timestamp,price\r\n"u 1",a,2026-01-31,9\r\n\r\n"u 1", b ,2026-01-30T12:00:00Z,8\r\n'
    )
    found = read(tmp_path, interactions, "\ufeff" + ITEMS.replace("\n", "\r\n") + ",,\r\n")
    assert found.user_ids == ("u 1",)
    assert found.choices.of(0).tolist() == [1, 0]
    assert found.notes == ("columns of interactions.csv that are not used: price",)


def test_the_last_of_a_repeated_choice_counts_and_unknown_items_are_left_out(tmp_path):
    rows = "user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,zz,3\nu,a,4\nv,zz,1\n"
    found = read(tmp_path, rows)
    assert found.choices.of(0).tolist() == [1, 0]
    assert found.notes[0] == "2 interactions of items that items.csv lacks were left out (first: line 4, 'zz')"
    assert found.notes[1].startswith("1 repeated interactions were left out")


@pytest.mark.parametrize(
    ("interactions", "words"),
    [
        ("", "interactions.csv: is empty"),
        ("user_id,item_id\n", "interactions.csv: has no interactions below its header"),
        ("user_id,rating\nu,1\n", "line 1: column 'item_id' is missing (found: user_id, rating); allowed: user_id,"),
        ("user_id,item_id,user_id\nu,a,v\n", "line 1: column 'user_id' is there twice"),
        ("user_id,item_id\nu\n", "line 2: has 1 values, must have 2"),
        ("user_id,item_id\nu,a,b\n", "line 2: has 3 values"),
        ("user_id,item_id\nu,a\n,b\n", "line 3, column 'user_id': is empty"),
        (f"user_id,item_id\n{'u' * 300},a\n", "line 2, column 'user_id': has 300 characters, at most 256"),
        ("user_id,item_id,rating\nu,a,good\n", "line 2, column 'rating': is 'good', must be a finite number"),
        ("user_id,item_id,rating\nu,a,nan\n", "line 2, column 'rating': is 'nan'"),
        ("user_id,item_id,timestamp\nu,a,1\nu,b,now\n", "line 3, column 'timestamp': is 'now', must be seconds"),
        ("user_id,item_id\nu,zz\n", "has no interactions of items that items.csv lists"),
        ('user_id,item_id\nu,"a\n', "is not CSV"),
        (b"user_id,item_id\nu,\xff\n", "is not UTF-8 text"),
        (b"user_id,item_id\nu,a\x00\n", "of items that items.csv lists"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(tmp_path, interactions, words):
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, interactions)
    assert words in str(caught.value)
    assert str(caught.value).startswith("interactions.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ("item_id,title\na,A\na,B\n", "items.csv, line 3, column 'item_id': 'a' is there a second time"),
        ("item_id,title\n", "items.csv: has no items below its header"),
        ("item_id,year\na,old\n", "items.csv, line 2, column 'year': is 'old'"),
        (f"item_id,title\na,{'t' * 5000}\n", "items.csv, line 2, column 'title': has 5000 characters"),
    ],
)
def test_a_wrong_catalogue(tmp_path, items, words):
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, items=items)
    assert words in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DatasetError, match=r"items\.csv: cannot be read \(No such file or directory\)"):
        dataset.read(tmp_path / "interactions.csv", tmp_path / "items.csv")


@pytest.mark.parametrize(
    ("users", "items", "words"),
    [
        (1, 30, "have 1 users with 3 or more different items, at least 10 are needed"),
        (12, 5, "of 5 different items"),
    ],
)
def test_too_little_to_learn_from(tmp_path, users, items, words):
    listed = "item_id\n" + "".join(f"i{item}\n" for item in range(items))
    rows = "user_id,item_id\n" + "".join(f"u{user},i{item}\n" for user in range(users) for item in range(items))
    with pytest.raises(DatasetError, match=words):
        dataset.check_size(read(tmp_path, rows, listed))


def test_the_last_choice_of_each_user_is_held_out(tmp_path):
    rows = "user_id,item_id,timestamp\nu,a,3\nu,b,1\nu,c,2\nv,a,1\nv,b,2\n"
    split = leave_last_out(read(tmp_path, rows).choices)
    assert split.users.tolist() == [0]
    assert split.targets.tolist() == [0]
    assert split.train.of(0).tolist() == [1, 2]
    assert split.train.of(1).tolist() == [0, 1]


def test_a_hundred_thousand_lines(tmp_path):
    listed = "item_id\n" + "".join(f"i{item}\n" for item in range(1000))
    lines = "".join(f"u{row % 997},i{row * 7919 % 1000},{row}\n" for row in range(120_000))
    found = read(tmp_path, "user_id,item_id,timestamp\n" + lines, listed)
    assert len(found.user_ids) == 997
    assert len(found.choices) == len({(row % 997, row * 7919 % 1000) for row in range(120_000)})
    for user in (0, 500, 996):
        times = found.choices.times[found.choices.starts[user] : found.choices.starts[user + 1]]
        assert (np.diff(times) > 0).all()


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=60)
    | st.text(alphabet='ui,"\n\r0.-é', max_size=40).map(lambda text: b"user_id,item_id,rating\n" + text.encode())
)
def test_no_bytes_do_more_than_be_refused(content):
    found = None
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DatasetError):
        found = read(Path(folder), content)
    assert found is None or len(found.choices) > 0
