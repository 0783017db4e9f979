"""The published schema is what it was before roots had groups of holders, wherever they have none."""

from __future__ import annotations

from typing import ClassVar

import pytest

from dht.identity import ED25519
from xenonode.first_schema import first_schema
from xenonode.model.errors import MessageError, ModelError
from xenonode.model.schema import PublishedSchema

KEY = ED25519.generate(bytes(32))


class Older(PublishedSchema):
    """A program that knows version 1 alone."""

    __slots__ = ()
    VERSION: ClassVar[int] = 1


def published(root_groups: int) -> PublishedSchema:
    return PublishedSchema.of(first_schema(), 64, 1, root_groups)


def test_without_groups_it_is_of_version_1_and_names_none() -> None:
    fields = published(1).to_fields()
    assert fields["version"] == 1 and "root_groups" not in fields
    assert PublishedSchema.open(published(1).seal(KEY).raw, ED25519)[0] == published(1)
    assert Older.open(published(1).seal(KEY).raw, ED25519)[0].root_groups == 1


def test_with_groups_it_is_refused_by_who_would_not_tell_them_of_what_it_holds() -> None:
    raw = published(8).seal(KEY).raw
    assert PublishedSchema.open(raw, ED25519)[0].root_groups == 8
    with pytest.raises(MessageError, match="version 2 is newer than 1"):
        Older.open(raw, ED25519)


def test_with_several_tries_it_is_refused_by_who_would_not_publish_to_all() -> None:
    told = PublishedSchema.of(first_schema(), 64, 1, 2, {"price.cpu": 4, "location": 3})
    raw = told.seal(KEY).raw
    assert PublishedSchema.open(raw, ED25519)[0] == told and dict(told.tries) == {"location": 3, "price.cpu": 4}
    with pytest.raises(MessageError, match="version 3 is newer than 1"):
        Older.open(raw, ED25519)
    assert published(8).to_fields()["version"] == 2 and "tries" not in published(8).to_fields()


@pytest.mark.parametrize(
    "tries",
    [[["cores", 1]], [["cores", 17]], [["cores", 2], ["cores", 3]], [["location", 2], ["cores", 2]], [["cores"]]],
)
def test_tries_that_cannot_be_are_refused(tries: list[list[object]]) -> None:
    fields = {**PublishedSchema.of(first_schema(), 64, 1, 1, {"cores": 2}).to_fields(), "tries": tries}
    with pytest.raises(MessageError):
        PublishedSchema.from_fields(fields)


@pytest.mark.parametrize("groups", [0, 65])
def test_there_are_as_many_groups_as_can_be_told_of_everything(groups: int) -> None:
    with pytest.raises(ModelError, match="1 to 64 groups"):
        published(groups)
    fields = {**published(2).to_fields(), "root_groups": groups}
    with pytest.raises(MessageError, match="1 to 64 groups"):
        PublishedSchema.from_fields(fields)
