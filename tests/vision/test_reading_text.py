import numpy as np
import pytest

from engines.sections.reading import Recognition
from services.vision.reading_text import CharactersError, Reading, joined, read_steps

CHARACTERS = ("a", "b", "木", " ")
LIKELIEST = Recognition(output="classes", confidence="sure")


def steps(*classes, sure=0.8):
    return {"classes": np.array([classes]), "sure": np.full((1, len(classes)), sure, np.float32)}


def test_repeats_are_one_character_and_blanks_are_none():
    assert read_steps(steps(0, 1, 1, 0, 1, 2, 2, 4, 4, 3), LIKELIEST, CHARACTERS).text == "aab 木"


def test_confidence_is_the_mean_of_the_characters_alone():
    outputs = steps(0, 1, 1, 0, 2)
    outputs["sure"][:] = [[0.1, 0.9, 0.2, 0.1, 0.5]]
    assert read_steps(outputs, LIKELIEST, CHARACTERS).confidence == pytest.approx(0.7)


def test_an_empty_line_is_empty():
    assert read_steps(steps(0, 0, 0), LIKELIEST, CHARACTERS) == Reading("", 0.0)


def test_probabilities_of_all_classes_say_the_same():
    probabilities = np.full((1, 4, 5), 0.05, np.float32)
    for step, index in enumerate((1, 0, 3, 3)):
        probabilities[0, step, index] = 0.8
    reading = read_steps({"probabilities": probabilities}, Recognition(), CHARACTERS)
    assert reading.text == "a木"
    assert reading.confidence == pytest.approx(0.8)


def test_a_network_that_knows_more_characters_than_the_file_is_found_out():
    with pytest.raises(CharactersError, match="class 5 has no line among the 4 characters"):
        read_steps(steps(5), LIKELIEST, CHARACTERS)


def test_parts_of_a_line_are_joined_by_spaces_where_their_script_has_them():
    parts = [Reading("the mill", 1.0), Reading("stands", 0.5), Reading("水", 0.5), Reading("车", 0.5)]
    assert joined(parts, [False, True, True, True]).text == "the mill stands水车"
    assert joined(parts[:2], [False, False]).text == "the millstands"
    assert joined(parts[:2], [False, True]).confidence == pytest.approx((8 * 1.0 + 6 * 0.5) / 14)
    assert joined([Reading("", 0.0)], [False]) == Reading("", 0.0)
