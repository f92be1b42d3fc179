"""Rounding to the nearest cached step."""

from hypothesis import given, settings
from hypothesis import strategies as st

from split_unlearning.unlearning.gradient_projection.rounding import nearest

steps = st.sets(st.integers(0, 60)).map(sorted)


def test_a_cached_step_stands_for_itself_and_a_tie_goes_to_the_earlier():
    assert nearest(7, [3, 7, 9]) == 7
    assert nearest(8, [3, 7, 10]) == 7
    assert nearest(8, [3, 6, 10]) == 6
    assert nearest(0, [3, 6]) == 3
    assert nearest(99, [3, 6]) == 6
    assert nearest(5, []) is None


@given(st.integers(-5, 65), steps)
@settings(deadline=None)
def test_nothing_is_nearer_and_nothing_as_near_is_earlier(step, cached):
    found = nearest(step, cached)
    if not cached:
        assert found is None
        return
    distances = {one: abs(one - step) for one in cached}
    assert found == min(one for one in cached if distances[one] == min(distances.values()))
