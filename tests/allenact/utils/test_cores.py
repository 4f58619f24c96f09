"""Quotas of control groups, read from files like those of the kernel."""

import os

from allenact.utils.cores import _cgroup_quotas, usable_cores


def test_at_least_one_and_no_more_than_there_are():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_the_scheduler_is_asked(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert usable_cores() == 1


def test_quota_of_version_2_and_of_its_parents(tmp_path):
    group = tmp_path / "cgroup" / "user" / "job"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "own").write_text("0::/user/job\n")
    assert list(_cgroup_quotas(tmp_path / "cgroup", tmp_path / "own")) == [1.5]


def test_quota_of_version_1(tmp_path):
    group = tmp_path / "cgroup" / "cpu" / "docker"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("400000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    (group.parent / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "own").write_text("5:memory:/docker\n4:cpu,cpuacct:/docker\n")
    assert list(_cgroup_quotas(tmp_path / "cgroup", tmp_path / "own")) == [4.0]


def test_no_control_groups(tmp_path):
    assert list(_cgroup_quotas(tmp_path, tmp_path / "missing")) == []
