"""Small helpers, each against its definition."""

import itertools
import json
import random
import subprocess

import numpy as np
import pytest
import torch

from allenact.utils import misc_utils as m


class Base:
    def __init__(self, **kwargs):
        self.kwargs = kwargs


class Child(Base):
    def __init__(self, size, colour="red", **kwargs):
        doubled = 2 * size
        super().__init__(**m.prepare_locals_for_super(locals()))


def test_prepare_locals_passes_every_local_on_and_drops_python_s_own():
    child = Child(3, weight=5)
    assert child.kwargs == {"size": 3, "colour": "red", "doubled": 6, "weight": 5}


def test_prepare_locals_prefers_locals_and_can_ignore_keywords():
    local_vars = {"self": None, "size": 1, "kwargs": {"size": 2, "extra": 3}, "__class__": int}
    assert m.prepare_locals_for_super(local_vars) == {"size": 1, "extra": 3}
    assert m.prepare_locals_for_super(local_vars, ignore_kwargs=True) == {"size": 1}


def test_prepare_locals_refuses_positional_arguments():
    with pytest.raises(ValueError, match="args"):
        m.prepare_locals_for_super({"args": (1,), "kwargs": {}})


@pytest.mark.parametrize(("length", "parts"), [(8, 3), (3, 3), (10, 4), (5, 1)])
def test_partition_sequence(length, parts):
    cut = m.partition_sequence(list(range(length)), parts)
    assert list(itertools.chain(*cut)) == list(range(length))
    sizes = [len(part) for part in cut]
    assert len(sizes) == parts
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


def test_partition_of_too_little_is_refused():
    with pytest.raises(ValueError, match="length 2 cannot be cut into 3"):
        m.partition_sequence([1, 2], 3)


@pytest.mark.parametrize(
    ("items", "parts", "limits"),
    [
        (16, 4, [0, 4, 8, 12, 16]),
        (16, 2, [0, 8, 16]),
        (128, 4, [0, 32, 64, 96, 128]),
        (3, 2, [0, 2, 3]),
        (5, 2, [0, 2, 5]),
        (5, 4, [0, 1, 2, 4, 5]),
        (7, 3, [0, 2, 5, 7]),
        (10, 4, [0, 2, 5, 8, 10]),
    ],
)
def test_reference_values_of_partition_limits(items, parts, limits):
    assert m.partition_limits(items, parts) == limits


def test_unzip_and_uninterleave():
    assert m.unzip([(1, "a"), (2, "b")]) == [[1, 2], ["a", "b"]]
    assert m.unzip([], n=3) == [[], [], []]
    with pytest.raises(ValueError, match="needs n"):
        m.unzip([])
    assert m.uninterleave([0, 1, 2, 3, 4], 2) == [[0, 2, 4], [1, 3]]
    with pytest.raises(ValueError, match="dealt"):
        m.uninterleave([0], 2)


def test_all_equal_and_all_unique():
    assert m.all_equal([])
    assert m.all_equal([2, 2, 2])
    assert not m.all_equal([2, 2, 3])
    assert m.all_unique("abc")
    assert not m.all_unique("aba")


def test_hashable_dicts_are_equal_keys_whatever_their_order():
    a = m.HashableDict({"x": 1, "y": {"z": (2, 3)}})
    b = m.HashableDict({"y": {"z": (2, 3)}, "x": 1})
    assert {a: "found"}[b] == "found"
    assert hash(a) != hash(m.HashableDict({"x": 2}))


def test_json_encoder_writes_numpy_and_torch_values():
    value = {
        "i": np.int64(3),
        "f": np.float32(0.5),
        "b": np.bool_(True),
        "a": np.arange(3),
        "t": torch.ones(2),
        "s": np.str_("x"),
    }
    text = json.dumps(value, cls=m.NumpyJSONEncoder)
    assert json.loads(text) == {"i": 3, "f": 0.5, "b": True, "a": [0, 1, 2], "t": [1.0, 1.0], "s": "x"}
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps({"o": object()}, cls=m.NumpyJSONEncoder)


def test_md5_hash_is_the_published_one():
    assert m.md5_hash_str_as_int("abc") == 0x900150983CD24FB0D6963F7D28E17F72


def test_git_diff_names_the_commit_and_the_change(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file.txt").write_text("old\n")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "file.txt").write_text("new\n")
    monkeypatch.chdir(tmp_path)
    sha, diff = m.get_git_diff_of_project()
    assert len(sha) >= 7
    assert "-old\n+new\n" in diff


def test_a_missing_git_executable_is_not_an_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert m.get_git_diff_of_project() == ("", "")


def test_str2bool():
    assert all(m.str2bool(v) for v in ("yes", "True", "T", "1", True))
    assert not any(m.str2bool(v) for v in ("no", "False", "f", "0", False))
    with pytest.raises(ValueError, match="maybe"):
        m.str2bool("maybe")


@pytest.mark.parametrize(("decorator", "word"), [(m.deprecated, "deprecated"), (m.experimental_api, "experimental")])
def test_api_decorators_warn_once_and_pass_everything_through(decorator, word, capsys):
    @decorator
    def add(a, b=1):
        """Adds."""
        return a + b

    assert (add(1), add(1, b=2)) == (2, 3)
    assert add.__doc__ == "Adds."
    assert capsys.readouterr().err.count(word) == 1


def test_download_appears_whole_and_is_not_repeated(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"12345")
    target = tmp_path / "folder" / "target.bin"
    m.multiprocessing_safe_download_file_from_url(source.as_uri(), str(target))
    assert target.read_bytes() == b"12345"
    source.unlink()
    m.multiprocessing_safe_download_file_from_url(source.as_uri(), str(target))  # already there
    assert [p.name for p in target.parent.iterdir()] == ["target.bin"]


def test_rand_float_is_uniform_between_its_limits():
    torch.manual_seed(0)
    x = m.rand_float(-1.0, 3.0, (1000,))
    assert -1.0 <= x.min() < -0.9
    assert 2.9 < x.max() < 3.0
    assert abs(x.mean() - 1.0) < 0.15


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_expected_max_equals_the_mean_over_all_subsets(size):
    values = [3.0, -1.0, 4.0, 1.0, 5.0]
    maxima = [max(subset) for subset in itertools.combinations(values, size)]
    assert m.expected_max_of_subset_statistic(values, size) == pytest.approx(sum(maxima) / len(maxima))


def test_expected_max_of_an_impossible_subset():
    with pytest.raises(ValueError, match="no subset of 3 of 2"):
        m.expected_max_of_subset_statistic([1.0, 2.0], 3)


def test_bootstrap_is_repeatable_and_leaves_the_global_generator_alone():
    random.seed(0)
    expected = random.random()
    random.seed(0)
    first = m.bootstrap_max_of_subset_statistic([1.0, 2.0, 3.0], 2, reps=20, seed=4)
    assert first == m.bootstrap_max_of_subset_statistic([1.0, 2.0, 3.0], 2, reps=20, seed=4)
    assert first != m.bootstrap_max_of_subset_statistic([1.0, 2.0, 3.0], 2, reps=20, seed=5)
    assert len(first) == 20
    assert all(1.0 <= value <= 3.0 for value in first)
    assert random.random() == expected


def test_tensor_print_options_are_temporary():
    x = torch.tensor([1 / 3])
    before = str(x)
    with m.tensor_print_options(precision=8):
        assert "0.33333334" in str(x)
    assert str(x) == before


def test_constants_and_debugger_exist():
    assert m.all_unique(m.TABLEAU10_RGB)
    assert len(m.TABLEAU10_RGB) == 10
    assert m.ForkedPdb.__mro__[1].__name__ == "Pdb"
    assert m.cached_comb(5, 2) == 10
