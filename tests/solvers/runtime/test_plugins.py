import pytest

from solvers.runtime.plugins import PluginWarning, plugins
from tests.solvers.distributions import distribution

SOURCE = """
class Named:
    name = "ours"

class Two(Named):
    name = "two"

one = Named()
one.name = "one"
raises = property(lambda self: 1 / 0)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, *entries, source=SOURCE, group="cbs.things"):
        distribution(tmp_path, name, "\n".join([f"[{group}]", *entries]), source)

    return install


def kind(module):
    return __import__(module).Named


def test_nothing_installed_adds_nothing():
    assert plugins("cbs.no-such-group", object, ()) == {}


def test_instances_and_classes_are_found_by_name(installed):
    installed("things_a", "one = things_a:one", "two = things_a:Two")
    found = plugins("cbs.things", kind("things_a"), ())
    assert list(found) == ["one", "two"]
    assert found["one"] is __import__("things_a").one
    assert type(found["two"]).__name__ == "Two"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("one = no_such_module:one", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("one = things_b:nothing", "AttributeError: "),
        ("one = things_b:half", "TypeError: it is a Fraction, not a things_b.Named"),
        ("ours = things_b:Named", "ValueError: the name 'ours' is taken"),
        ("other = things_b:one", "ValueError: its name is 'one'; announce it as that"),
        ("one = no entry point", ""),
    ],
)
def test_a_broken_one_is_a_line_and_does_not_hide_the_others(installed, entry, reason):
    source = SOURCE + "from fractions import Fraction\nhalf = Fraction(1, 2)\n"
    installed("things_b", entry, "two = things_b:Two", source=source)
    with pytest.warns(PluginWarning) as told:
        found = plugins("cbs.things", kind("things_b"), {"ours"})
    assert list(found) == ["two"]
    (line,) = [str(warning.message) for warning in told]
    name, value = entry.split(" = ")
    assert line.startswith(f"plug-in cbs.things {name!r} of things_b ({value}) is left out: {reason}")
    assert "\n" not in line


def test_a_module_that_fails_is_a_line(installed):
    installed("things_c", "one = things_c:one", source="raise RuntimeError('two\\nlines')")
    with pytest.warns(PluginWarning, match="left out: RuntimeError: two lines$"):
        assert plugins("cbs.things", object, ()) == {}


def test_a_module_that_ends_the_process_is_a_line(installed):
    installed("things_g", "one = things_g:one", source="raise SystemExit(3)")
    with pytest.warns(PluginWarning, match="left out: SystemExit: 3$"):
        assert plugins("cbs.things", object, ()) == {}


def test_what_the_check_refuses_is_left_out(installed):
    installed("things_d", "one = things_d:one", "two = things_d:Two")

    def check(found):
        if found.name == "one":
            raise ValueError("no ones")

    with pytest.warns(PluginWarning, match="left out: ValueError: no ones$"):
        assert list(plugins("cbs.things", kind("things_d"), (), check)) == ["two"]


def test_of_two_packages_with_one_name_one_counts(installed):
    installed("things_e", "two = things_e:Two")
    installed("things_f", "two = things_e:Two")
    with pytest.warns(PluginWarning, match="left out: ValueError: the name 'two' is taken$") as told:
        assert list(plugins("cbs.things", kind("things_e"), ())) == ["two"]
    assert len(told) == 1


def test_metadata_that_cannot_be_read_is_a_line(installed, tmp_path):
    installed("things_g", "two = things_g:Two")
    distribution(tmp_path, "things_h", "[cbs.things]\nno equals sign")
    with pytest.warns(PluginWarning, match="things_h") as told:
        assert list(plugins("cbs.things", kind("things_g"), ())) == ["two"]
    assert len(told) == 1
