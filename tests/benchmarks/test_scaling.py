"""The scaling model: its arithmetic, and its table in the page."""

import pytest

from benchmarks.scaling import PAGE, SessionCost, needs, table, wire_bits_s


def test_bits_count_every_header():
    assert wire_bits_s(100, 1) == 8 * (100 + 2 + 40)
    assert wire_bits_s(4800, 10) == 80 * (4800 + 4 + 4 * 40)


def test_twice_the_sessions_need_twice_the_nodes_and_a_lost_one_costs_half_the_share():
    cost = SessionCost(step_cores=0.04, front_cores=0.01, up_bits_s=1e6, down_bits_s=1e5)
    small, large = needs(22_400, cost), needs(44_800, cost)
    assert small["sessions of a node"] == 224
    assert (small["nodes"], large["nodes"]) == (100, 200)
    assert small["share of sessions lost with a node"] == pytest.approx(0.01)
    assert (small["gateways"], large["gateways"]) == (2, 3), "of 15,000 sessions each, by their bandwidth upwards"


def test_the_page_has_the_table_of_the_script():
    assert table() in PAGE.read_text(), "run python -m benchmarks.scaling"
