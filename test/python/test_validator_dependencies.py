"""Versions, requirements and wheel tags, each answer compared with the reference implementation, and the list
of the
runtime's packages compared with what is installed and pinned."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import re
import sys

import pytest
from conftest import ROOT, load_function
from packaging import markers, requirements, specifiers, tags, version

MODULES = load_function(
    "plugin-validator", "_versions", "_requirements", "_target", "_runtime", "_vendored", "_findings"
)
LAMBDA = MODULES._target.read_target({"python": "3.13", "machine": "x86_64"})

VERSIONS = [
    "0", "0.0.0", "1", "1.0", "1.0.0", "1.0.1", "1.1", "1.10", "1.9", "2", "2.0.0", "10.0", "2024.1",
    "1.0a1", "1.0.a.1", "1.0alpha1", "1.0b2", "1.0rc1", "1.0c1", "1.0preview", "1.0-pre.3", "1.0.dev0", "1.0.dev3",
    "1.0a1.dev2", "1.0.post1", "1.0-1", "1.0.rev2", "1.0.post1.dev3", "1.0rc1.post2", "1.0+local", "1.0+1", "1.0+1.2",
    "1.0+ubuntu-1", "1.0.post1+cpu", "1!0.5", "1!1.0", "v1.0", " 1.0 ", "1.0.0.0.0.1",
]  # fmt: skip
NO_VERSIONS = [
    "",
    "x",
    "1.",
    ".1",
    "1..0",
    "1.0-",
    "1.0+",
    "1.0+a..b",
    "1.0 1",
    "1.0.x",
    "-1",
    "1,0",
    "1.0a1b1",
    "1!",
    "１.0",
]
CLAUSES = [
    *(f"{op}{v}" for op in ("==", "!=", "<=", ">=", "<", ">", "~=", "===") for v in VERSIONS if " " not in v),
    *(f"{op}{v}.*" for op in ("==", "!=") for v in ("1", "1.0", "1.0.0", "1!1", "2024", "1.0a1", "1.0+x", "1.0.post1")),
    ">=1.0.*", "~=1", "=1.0", "1.0", "=>1", ">= 1.0", "==", "~=1.0a1", "~=1.4.2", "~=1.0.post1", "<1.0.dev1", ">1.0a1",
]  # fmt: skip


def reference(build, text):
    try:
        return build(text)
    except (version.InvalidVersion, specifiers.InvalidSpecifier, requirements.InvalidRequirement):
        return None


@pytest.mark.parametrize("text", VERSIONS + NO_VERSIONS)
def test_a_text_is_a_version_exactly_if_the_standard_says_so(text):
    assert (MODULES._versions.parse_version(text) is None) is (reference(version.Version, text) is None)


def test_versions_are_ordered_as_the_standard_orders_them():
    for a, b in itertools.product(VERSIONS, repeat=2):
        ours = [MODULES._versions.parse_version(t).key for t in (a, b)]
        theirs = [version.Version(t) for t in (a, b)]
        assert (ours[0] < ours[1], ours[0] == ours[1]) == (theirs[0] < theirs[1], theirs[0] == theirs[1]), (
            a,
            b,
        )


@pytest.mark.parametrize("clause", CLAUSES)
def test_a_clause_takes_the_versions_that_the_standard_lets_it_take(clause):
    ours, theirs = MODULES._versions.parse_specifiers(clause), reference(specifiers.SpecifierSet, clause)
    assert (ours is None) is (theirs is None)
    if ours is None or theirs is None:
        return
    for text in VERSIONS:
        if clause.startswith("===") and text != text.strip():
            continue
        assert MODULES._versions.fits(ours, text) is theirs.contains(text, prereleases=True), text


def test_several_clauses_must_all_fit_and_what_is_no_version_is_not_compared():
    read, fits = MODULES._versions.parse_specifiers, MODULES._versions.fits
    assert fits(read(">=1, !=1.5 ,<2"), "1.4") is True
    assert fits(read(">=1,!=1.5,<2"), "1.5.0") is False
    assert fits(read(">=1"), "not-a-version") is None
    assert fits(read(""), "anything") is True


REQUIREMENTS = [
    "numpy", "NumPy", "a.b_c-d", "a[b]", "a[b,c]>=1", "a [ b ] >= 1 , < 2", "a (>=1)", "a>=1;python_version<'3'",
    "a;python_version>='3.9' and sys_platform=='linux'", "a; (os_name=='nt' or os_name == 'posix') and '86' in platform_machine",
    "a; platform_machine not in 'arm64 aarch64'", "a; python_full_version ~= '3.13.0'", "a; extra == 'x'",
    "a; implementation_name=='cpython' or extra=='y'", "a; '3.9' <= python_version",
    "a; python_version in '3.12 3.13'", "a; python_version == '3.*'", "a; platform_system != \"Windows\"",
    "-a", "a-", "a b", "a >= ", "a==x", "a;", "a; python_version", "a; python_version > ", "a; nope == '1'",
    "a; python_version > '3' and", "a; (python_version > '3'", "a; python_version > '3')", "a[b", "a]b", "1", "é", "a>=1 <2",
]  # fmt: skip


@pytest.mark.parametrize("text", REQUIREMENTS)
def test_a_requirement_is_read_as_the_standard_reads_it(text):
    theirs = reference(requirements.Requirement, text)
    try:
        ours = MODULES._requirements.parse_requirement(text, LAMBDA)
    except MODULES._requirements.BadRequirement:
        ours = None
    assert (ours is None) is (theirs is None)
    if ours is None or theirs is None:
        return
    assert ours.written == theirs.name
    assert {s.operator + s.text for s in ours.specifiers} == {str(s) for s in theirs.specifier}
    environment = {k: v for k, v in LAMBDA.marker_variables().items() if k in markers.default_environment()}
    wanted = theirs.marker is None or theirs.marker.evaluate({**environment, "extra": ""})
    assert ours.applies is wanted


@pytest.mark.parametrize(
    "text",
    ["a @ https://x/y.whl", "https://x/y", "./a", "../a", "/a", "~/a", "-r x.txt", "git+ssh://x", "a" * 501],
)
def test_what_only_an_installer_could_follow_is_no_requirement(text):
    with pytest.raises(MODULES._requirements.BadRequirement):
        MODULES._requirements.parse_requirement(text, LAMBDA)


def test_a_wheel_fits_exactly_if_the_standard_lists_one_of_its_tags_for_the_target():
    arch = "x86_64"
    old = [f"manylinux{n}_{arch}" for n in ("1", "2010", "2014")]
    platforms = [f"manylinux_2_{minor}_{arch}" for minor in range(34, 4, -1)] + old + [f"linux_{arch}"]
    supported = {
        str(tag)
        for tag in itertools.chain(
            tags.cpython_tags((3, 13), ["cp313"], platforms),
            tags.compatible_tags((3, 13), "cp313", platforms),
        )
    }
    some = ("any", f"linux_{arch}", *old, *(f"manylinux_2_{m}_{arch}" for m in (5, 17, 28, 34, 35, 39)),
            "manylinux_2_17_aarch64", "manylinux2014_i686", "musllinux_1_2_x86_64", "win_amd64",
            "macosx_11_0_arm64", "linux_aarch64", "manylinux_2_17")  # fmt: skip
    pythons = (
        "py3",
        "py2",
        "py30",
        "py313",
        "py314",
        "cp313",
        "cp312",
        "cp314",
        "cp39",
        "cp32",
        "cp31",
        "cp3",
        "pp311",
    )
    abis = ("none", "abi3", "cp313", "cp313t", "cp312", "cp314", "pypy311_pp73")
    for tag in ("-".join(parts) for parts in itertools.product(pythons, abis, some)):
        # The standard never lists what nobody builds: abi3 before 3.2, code of one interpreter for "any" with an ABI.
        odd = "-abi3-any" in tag or "-cp313-any" in tag
        assert odd or LAMBDA.takes(tag) is (tag in supported), tag
    assert LAMBDA.takes("py2.py3-none-any") and LAMBDA.takes(
        "cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64"
    )
    for nonsense in ("", "-", "--", "py3-none", "py3-none-any-more", "py3-none-"):
        assert not LAMBDA.takes(nonsense)


def test_this_machine_takes_the_wheels_that_are_installed_in_it():
    here = MODULES._target.read_target(None)
    assert here.minor == sys.version_info.minor
    seen = 0
    for installed in importlib.metadata.distributions():
        wheel = installed.read_text("WHEEL") or ""
        found = [line[4:].strip() for line in wheel.splitlines() if line.startswith("Tag:")]
        if found:
            seen += 1
            assert any(here.takes(tag) for tag in found), (installed.name, found)
    assert seen > 10


def pins(path: str, minor: int) -> dict[str, str]:
    """The exact pins of a requirements file that count for Python 3.``minor``."""
    found = {}
    for line in (ROOT / path).read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        one = requirements.Requirement(line)
        (pin,) = one.specifier
        assert pin.operator == "==", line
        if one.marker is None or one.marker.evaluate({"python_version": f"3.{minor}"}):
            found[MODULES._requirements.canonical(one.name)] = pin.version
    return found


def test_the_runtime_has_what_its_layer_pins_on_aws():
    assert MODULES._runtime.VERSIONS == pins("layers/python-science/requirements.txt", 13)


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_the_runtime_has_what_the_local_stage_pins(minor):
    local = pins("local/requirements.txt", minor)
    runtime = MODULES._runtime.runtime_versions(minor)
    assert {name: local.get(name) for name in runtime} == runtime


def test_the_runtime_has_what_is_installed_here_and_the_packages_can_be_imported():
    runtime = MODULES._runtime.runtime_versions(sys.version_info.minor)
    assert {name: importlib.metadata.version(name) for name in runtime} == runtime
    import PIL.Image
    import pypdf
    import soundfile

    assert PIL.Image and pypdf and soundfile.__libsndfile_version__


def test_what_the_packages_of_the_layer_need_is_in_the_layer():
    names = set(MODULES._runtime.VERSIONS)
    for name in names:
        for text in importlib.metadata.requires(name) or []:
            one = requirements.Requirement(text)
            environment = {"python_version": "3.13", "sys_platform": "linux", "extra": ""}
            if one.marker is None or one.marker.evaluate(environment):
                needed = MODULES._requirements.canonical(one.name)
                assert needed in names, f"{name} needs {text}"
                assert one.specifier.contains(MODULES._runtime.VERSIONS[needed]), f"{name} needs {text}"


def test_the_layer_as_it_was_built_holds_the_runtime_and_fits_the_functions_limit():
    built = ROOT / ".local" / "layers" / "python-science-x86_64"
    if not (built / "built.json").is_file():
        pytest.skip('the layer is not built; "npm run layers" builds it')
    found = {}
    for metadata in built.glob("python/*.dist-info"):
        name, _, number = metadata.name.removesuffix(".dist-info").partition("-")
        found[MODULES._requirements.canonical(name)] = number
        tag_lines = re.findall(r"^Tag: (.*)$", (metadata / "WHEEL").read_text(), re.MULTILINE)
        assert any(LAMBDA.takes(tag.strip()) for tag in tag_lines), (name, tag_lines)
    if json.loads((built / "built.json").read_text())["bytes"] > 250 * 1024 * 1024:
        pytest.fail("the layer is larger than a function may be")
    if found != MODULES._runtime.VERSIONS:
        pytest.skip('the layer was built from other requirements; "npm run layers" builds it anew')


# -- what lies under vendor/
# ---------------------------------------------------------------------------------------------------


def read(files: dict[str, str], target=LAMBDA):
    findings = MODULES._findings.Findings()
    texts = {path: text.encode() for path, text in files.items()}
    return MODULES._vendored.read_vendored(list(files), texts, target, findings), findings


def test_a_package_is_known_by_its_metadata_and_without_by_its_folder():
    vendored, findings = read(
        {
            "vendor/PyYAML-6.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: PyYAML\nVersion: 6.0.1\n\nName: x\n",
            "vendor/yaml/__init__.py": "",
            "vendor/Foo_Bar-2.0.dist-info/RECORD": "",
            "vendor/single.py": "",
        }
    )
    assert findings.errors == [] and findings.warnings == []
    assert {n: d.version for n, d in vendored.distributions.items()} == {"pyyaml": "6.0.1", "foo-bar": "2.0"}
    assert vendored.modules == {"yaml", "single"} and vendored.has_code


def test_a_tag_is_found_on_its_line_and_one_that_fits_is_enough():
    fitting, findings = read({"vendor/a-1.dist-info/WHEEL": "Tag: cp312-cp312-win32\nTag: py3-none-any\n"})
    assert findings.errors == [] and len(fitting.distributions["a"].tags) == 2
    _, findings = read({"vendor/a-1.dist-info/WHEEL": "Wheel-Version: 1.0\n\nTag: py3-none-any\n"})
    assert findings.errors == []
    _, findings = read(
        {"vendor/a-1.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: cp312-cp312-win32\nTag: py2-none-any\n"}
    )
    (error,) = findings.errors
    assert error["type"] == "wheel_does_not_fit" and error["location"] == ["vendor/a-1.dist-info/WHEEL", 2, 1]
    assert "cp312-cp312-win32 and 1 more" in error["message"] and "'a==1'" in error["fix"]
    assert "--python-version 3.13 --platform manylinux_2_28_x86_64" in error["fix"]


def test_a_wheel_that_is_packed_is_refused_with_the_command_that_unpacks_it_or_fetches_the_right_one():
    _, findings = read(
        {"vendor/six-1.17.0-py2.py3-none-any.whl": "", "vendor/x-1.0-cp312-cp312-win_amd64.whl": ""}
    )
    pure, foreign = findings.errors
    assert pure["fix"].endswith(
        "python -m zipfile -e vendor/six-1.17.0-py2.py3-none-any.whl vendor && rm vendor/six-1.17.0-py2.py3-none-any.whl"
    )
    assert "'x==1.0'" in foreign["fix"] and "would not fit" in foreign["fix"]


def test_on_a_mac_its_own_wheels_fit_and_linux_wheels_do_not():
    mac = MODULES._target.Target(minor=12, machine="arm64", system="darwin", glibc=None)
    assert mac.takes("cp312-cp312-macosx_11_0_arm64") and mac.takes("cp312-cp312-macosx_10_9_universal2")
    assert not mac.takes("cp312-cp312-manylinux_2_17_x86_64") and not mac.takes(
        "cp312-cp312-macosx_10_9_x86_64"
    )
    findings = MODULES._findings.Findings()
    native = ["vendor/a.cpython-312-darwin.so", "vendor/b.dylib", "vendor/c.cpython-312-x86_64-linux-gnu.so"]
    MODULES._vendored.check_native_files(native, mac, findings)
    assert [e["location"][0] for e in findings.errors] == ["vendor/c.cpython-312-x86_64-linux-gnu.so"]
