"""The table of variables is complete."""

from exlb_fab.variables import VARIABLES


def test_every_variable_has_a_description_and_either_a_default_or_words_for_it() -> None:
    for spec in VARIABLES:
        assert spec.description
        assert spec.right.startswith("write ")
        assert [spec.required, spec.default != "", spec.otherwise != ""].count(True) == 1, spec.name
