"""Plans of a cluster, without one: rates, commands, counters, control groups, link check."""

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.network import groups, linkcheck, links

NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:     100       1    0    0    0     0          0         0      200       1    0    0    0
  eth0: 1234567    1000    0    0    0     0          0         0  7654321    2000    0    0    0
"""


@pytest.mark.parametrize(
    ("text", "rate"), [("100mbit", 1e8), ("2.5gbit", 2.5e9), ("64kbit", 64e3), ("none", math.inf)]
)
def test_rates_are_read(text, rate):
    assert links.parse_rate(text) == rate


@pytest.mark.parametrize("text", ["100", "mbit", "0mbit", "-1gbit", "1gb", "100 mbit", "1.2.3mbit"])
def test_other_rates_are_refused_in_one_line(text):
    with pytest.raises(ValueError, match="bandwidth must be a number and a unit") as caught:
        links.parse_rate(text)
    assert repr(text) in str(caught.value)


def test_delays_are_read():
    assert [links.parse_delay(t) for t in ("1ms", "200us", "0ms", "2s")] == pytest.approx(
        [1e-3, 2e-4, 0, 2]
    )
    with pytest.raises(ValueError, match="delay must be a number and a unit like 1ms"):
        links.parse_delay("1m")


@given(st.integers(1, 64), st.integers(1, 16))
def test_dilation_gives_every_node_its_part_of_the_cores(nodes, cores):
    k = links.dilation(nodes, cores)
    assert nodes / k <= cores
    assert k == 1 or nodes / (k - 1) > cores


@given(st.floats(1e6, 1e10), st.floats(0, 0.1), st.integers(1, 8))
def test_what_a_dilated_link_carries_takes_k_times_as_long(rate, delay, k):
    slow = links.Link(rate, delay).dilated(k)
    size = 1e6
    assert size / slow.rate + slow.delay == pytest.approx(k * (size / rate + delay))


def test_every_link_is_shaped_in_both_directions_and_delayed_once():
    commands = links.set_up(2, links.Link(50e6, 2e-3))
    shaping = [command for command in commands if command[0] == "tc"]
    for node in range(2):
        port = [c for c in shaping if f"port{node}" in c]
        own = [c for c in shaping if c[1:3] == ["-n", f"node{node}"]]
        assert [("tbf" in c, "netem" in c) for c in port] == [(True, False)]
        assert [("tbf" in c, "netem" in c) for c in own] == [(True, False), (False, True)]
        assert all("50000000bit" in c for c in (port[0], own[0]))
        assert "2000us" in own[1]
    made = [c for c in commands if c[:3] == ["ip", "netns", "add"]]
    assert [c[3] for c in made] == ["node0", "node1"]
    assert links.hosts(2).splitlines()[1:] == ["10.77.0.1 node0", "10.77.0.2 node1"]


def test_a_link_that_nothing_holds_back_is_not_shaped():
    assert not [c for c in links.set_up(3, links.Link(math.inf)) if c[0] == "tc"]


def test_counters_are_those_of_the_interface():
    assert links.counters(NET_DEV) == (1234567, 7654321)
    with pytest.raises(ValueError, match="no interface 'eth9'"):
        links.counters(NET_DEV, "eth9")


def test_links_may_be_five_per_cent_off():
    assert linkcheck.wrong([96e6, 104e6], 100e6) is None
    assert "carries 94" in linkcheck.wrong([99e6, 94e6], 100e6)
    # 1448 of 1514 bytes are payload.
    assert linkcheck.rate_of(1448, 1.0) == 8 * 1514


@pytest.mark.parametrize(("version", "files"), [(1, "cgroup"), (2, "cgroup2")])
def test_the_controller_is_found_in_both_versions(tmp_path, version, files):
    (tmp_path / "proc").mkdir()
    where = tmp_path / "sys/fs/cgroup/here"
    where.mkdir(parents=True)
    (where / "cgroup.controllers").write_text("cpu memory\n")
    lines = [f"cgroup /sys/fs/cgroup/here {files} rw,cpu 0 0"]
    (tmp_path / "proc/mounts").write_text("\n".join(["proc /proc proc rw 0 0", *lines]))
    assert groups.controller(tmp_path) == (where, version)
    (tmp_path / "proc/mounts").write_text("proc /proc proc rw 0 0\n")
    assert groups.controller(tmp_path) is None


@given(st.floats(1, 200))
def test_a_quota_is_the_node_s_share_and_one_that_the_kernel_takes(k):
    limit, period = groups.quota(k)
    assert limit / period == pytest.approx(1 / k, rel=2e-3)
    assert limit >= groups.LEAST_QUOTA_US
    assert period <= 1_000_000


def test_groups_of_programs_that_are_gone_are_removed_and_no_others(tmp_path):
    (tmp_path / "proc/7").mkdir(parents=True)
    parent = tmp_path / "groups"
    for name in ("jist-network-7/node0", "jist-network-8/node0", "other-8"):
        (parent / name).mkdir(parents=True)
    assert groups.remove_stale(parent, root=tmp_path) == ["jist-network-8"]
    assert sorted(os.listdir(parent)) == ["jist-network-7", "other-8"]
