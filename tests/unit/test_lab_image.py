"""Which image a release has; nothing is built here."""

from pathlib import Path

import pytest

from exlb_fab.errors import LabError
from exlb_fab.lab import image


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have images that are "built" by making their directories, and return the list of those that were."""
    releases: list[str] = []

    def build(release: str, unfinished: image.Image, *, log: Path) -> None:
        releases.append(release)
        if release == "trixie":
            raise LabError("no trixie today", hint=f"less {log}")

    monkeypatch.setenv("EXLB_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(image, "_build", build)
    return releases


def test_each_release_is_built_once(built: list[str]) -> None:
    said: list[str] = []
    images = image.ensure(["bullseye", "el9-like"], said.append)
    assert built == ["bullseye", "el9-like"] == list(images)
    assert [text.split(",")[0] for text in said] == ["building the bullseye image", "building the el9-like image"]
    assert image.ensure(["el9-like", "bullseye"], said.append) == images
    assert len(built) == 2
    assert all(each.present() for each in images.values())


def test_a_release_that_there_is_not_is_refused_before_anything_is_built(built: list[str]) -> None:
    with pytest.raises(LabError, match="no lab for 'warty'") as refusal:
        image.ensure(["bullseye", "warty"], lambda text: None)
    assert refusal.value.hint == "one of: bullseye, bookworm, trixie, el9-like"
    assert built == []


def test_an_image_that_cannot_be_built_is_not_taken_for_one(built: list[str]) -> None:
    with pytest.raises(LabError, match="no trixie today"):
        image.ensure(["bullseye", "trixie"], lambda text: None)
    assert image.image("bullseye").present()
    assert not image.image("trixie").present()


def test_every_release_has_an_image_of_its_own() -> None:
    images = {image.image(release).directory.name for release in image.RELEASES}
    assert len(images) == len(image.RELEASES)


def test_a_changed_file_of_the_recipe_makes_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(release: str) -> str:
        return image.image(release).directory.name

    before = {release: name(release) for release in image.RELEASES}
    recipe = image._RECIPES["el9-like"]
    (tmp_path / "style").mkdir()
    (tmp_path / "style/haproxy.service").write_text("[Service]\n")
    monkeypatch.setattr(image, "_HERE", tmp_path)
    changed = image._Recipe(recipe.suite, recipe.system, recipe.offline, hooks=(), also=(tmp_path / "style",))
    monkeypatch.setitem(image._RECIPES, "el9-like", changed)
    once = name("el9-like")
    assert once != before["el9-like"]
    (tmp_path / "style/haproxy.service").write_text("[Unit]\n")
    assert name("el9-like") not in (once, before["el9-like"])
