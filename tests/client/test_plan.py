"""Plans are read whole, and what is wrong with one is said with its place."""

from __future__ import annotations

import pytest

from summaries.query import Near
from xenonode.client.plan import EXAMPLE, read_plan
from xenonode.errors import XenoError

GOOD = '[[member]]\nname = "web"\ncpu = "1 ms/s"\n'


def test_the_example_is_a_plan() -> None:
    group = read_plan(EXAMPLE.encode())
    assert [(one.name, one.count) for one in group.members] == [("web", 2), ("db", 1)]
    assert group.members[0].near == Near(("127.0.0.1:7410",), 200_000)
    assert [(one.least_us, one.most_us) for one in group.between] == [(1_000, None), (0, 100_000)]


def test_a_plan_may_say_its_version() -> None:
    assert read_plan(("version = 1\n" + GOOD).encode()) == read_plan(GOOD.encode())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "names no"),
        ("x = ", "no TOML"),
        ("version = 2\n" + GOOD, "version = 2: plans of version 1 are understood"),
        ('version = "1"\n' + GOOD, "version = '1': plans of version 1"),
        ("version = true\n" + GOOD, "version = True: plans of version 1"),
        ('curency = "USD"\n' + GOOD, "did you mean currency"),
        ('[[member]]\nname = "web"\n', "asks for nothing"),
        ('[[member]]\ncpu = "1 ms/s"\n', "member 1 has no name"),
        (GOOD + 'cores = 4\n', "member 1: unknown setting 'cores'"),
        (GOOD + 'memory = "1 GBit"\n', "member 'web': memory: unit 'GBit'"),
        (GOOD + 'query = "coars >= 4"\n', "query: at position 0: unknown attribute 'coars'; did you mean cores"),
        (GOOD + 'query = "cores >= 4 limit 3"\n', "a condition only"),
        (GOOD + "count = 0\n", "count must be"),
        (GOOD + 'near = ["1.2.3.4:5"]\n', "belong together"),
        (GOOD + GOOD, "a name of its own"),
        (GOOD + '[[apart]]\nmembers = ["web", "wep"]\nat_least = "1 ms"\n', "apart 1: .*'wep'; did you mean web"),
        (GOOD + '[[together]]\nmembers = ["web"]\nat_most = "1 ms"\n', "must name two"),
        (GOOD + '[[together]]\nmembers = ["web", "web"]\nat_least = "1 ms"\n', "did you mean at_most"),
        ("member = 3\n", "double brackets"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text: str, what: str) -> None:
    with pytest.raises(XenoError, match=what) as refused:
        read_plan(text.encode(), "plan.toml")
    assert refused.value.message.startswith("plan.toml: ") and refused.value.next_step
