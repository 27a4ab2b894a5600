"""The rules of this house that no tool checks. Each test's name is a rule; its message says what to do."""

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBS = sorted(ROOT.glob("libs/*/aragora/*/"))
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/*/main.py"))
PACKAGES = [*LIBS, *SERVICES, ROOT / "deploy/nats/aragora_nats", ROOT / "deploy/standalone/standalone"]
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
QUERIES = sorted(path for package in PACKAGES for path in package.rglob("sql/*.sql"))
SQL = sorted(path for package in PACKAGES for path in package.rglob("*.sql"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAX_LINES = 300
CHASSIS_BUDGET = 1_985
"""Lines of code, without docstrings, comments and blank lines."""
ROOT_FOLDER = {
    ".ci", ".dockerignore", ".git", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile",
    "README.md", "dashboard", "deploy", "docker-compose.yml", "docs", "libs", "pyproject.toml", "requirements",
    "services", "tests",
}  # fmt: skip
SHUNNED_NAMES = {"base", "dto", "helper", "helpers", "manager", "processor", "util", "utils"}
FLOAT_ALLOWED = {"client.py": "Retry-After: seconds to wait, not money"}
STAR_ALLOWED = {
    "refold.py": "a view of one stretch of the log; the fold names the columns that it reads",
    "refold.sql": "a row goes from a table to its like, and was compared as a row before",
}
SLEEP_ALLOWED = {
    "tests/servers.py": "eventually",
    "tests/faults/storm.py": "watches how far a run has come, through crashes of what it asks",
}
FOREIGN_VARIABLES = {
    "DOCKER_HOST", "OTEL_EXPORTER_OTLP_ENDPOINT", "PATH", "PYTEST_XDIST_WORKER", "SSL_CERT_DIR",
}  # fmt: skip
"""Environment variables that belong to others."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


def strings_in(path: Path) -> Iterator[str]:
    return (node.value for node in nodes(path) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def called(node: ast.AST) -> str:
    """`datetime.now` for a node that calls `datetime.now()`, else ''."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def code_lines(path: Path) -> int:
    docstrings = {
        line
        for node in nodes(path)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docstrings)


def test_the_packages_are_found():
    assert {package.name for package in PACKAGES} >= {"contracts", "chassis", "billing", "metering", "standalone"}
    assert len(SOURCES) > 50
    assert len(QUERIES) > 4


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name_of)
def test_a_file_is_split_before_it_is_long(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, "split it by what it is about, never by layer"


def test_the_chassis_stays_small():
    lines = sum(code_lines(path) for path in SOURCES if "libs/chassis" in name_of(path))
    assert lines <= CHASSIS_BUDGET, "does all of it belong to at least two services, and to none of them?"


@pytest.mark.parametrize("path", [path for path in SOURCES if "standalone" not in name_of(path)], ids=name_of)
def test_no_float_near_money(path: Path):
    converted = [node for node in nodes(path) if called(node) == "float"]
    assert not converted or path.name in FLOAT_ALLOWED, "money is a Decimal, from the price book to the invoice"


@pytest.mark.parametrize("path", SQL, ids=name_of)
def test_no_float_in_the_database(path: Path):
    assert not re.search(r"\b(real|float[48]?|double precision|money)\b", path.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("path", [*SOURCES, *TESTS, *SQL, ROOT / "Makefile", *ROOT.glob("docs/**/*.md")], ids=name_of)
def test_nothing_is_left_to_do(path: Path):
    assert not re.search(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b", path.read_text(encoding="utf-8"))


def pure_modules() -> list[Path]:
    (contract,) = (one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["id"] == "pure")
    wanted = tuple(contract["source_modules"])
    return [path for path in SOURCES if module_of(path).startswith(wanted)]


def module_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    root = "aragora" if "aragora" in parts else next(package.name for package in PACKAGES if package in path.parents)
    return ".".join(parts[len(parts) - 1 - parts[::-1].index(root) :]).removesuffix(".__init__")


@pytest.mark.parametrize("path", pure_modules(), ids=name_of)
def test_what_decides_is_told_the_time(path: Path):
    clocks = re.compile(r"(^|\.)(now|utcnow|today|time|time_ns|monotonic|perf_counter)$")
    assert not [called(node) for node in nodes(path) if clocks.search(called(node))]


@pytest.mark.parametrize("path", [path for path in SOURCES if "standalone" not in name_of(path)], ids=name_of)
def test_connections_notice_that_the_other_side_has_vanished(path: Path):
    own = [called(node) for node in nodes(path) if called(node) in ("asyncpg.connect", "asyncpg.create_pool")]
    assert not own or path.name == "database.py", "aragora.chassis.database opens connections"


@pytest.mark.parametrize("path", [*SQL, *SOURCES], ids=name_of)
def test_columns_are_named(path: Path):
    texts = [path.read_text(encoding="utf-8")] if path.suffix == ".sql" else strings_in(path)
    starred = [text for text in texts if re.search(r"\bselect\s+(distinct\s+)?(\w+\.)?\*", text, re.IGNORECASE)]
    assert not starred or path.name in STAR_ALLOWED, "a new column would change what this means"


@cache
def attributes_used_in(package: Path) -> set[str]:
    return {node.attr for source in package.rglob("*.py") for node in nodes(source) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("path", QUERIES, ids=name_of)
def test_no_query_is_dead(path: Path):
    used = attributes_used_in(next(package for package in PACKAGES if package in path.parents))
    names = re.findall(r"^-- name: *(\w+)", path.read_text(), re.MULTILINE)
    assert names
    assert [name for name in names if name not in used] == []


def test_every_environment_variable_is_documented():
    ours = re.compile(r"(ARAGORA|DATABASE|NATS|STRIPE)_[A-Z_]+")
    files = [*SOURCES, ROOT / "tests/servers.py", *ROOT.glob("tests/faults/*.py")]
    used = {text for path in files for text in strings_in(path) if ours.fullmatch(text)}
    read = {
        found
        for path in files
        for node in nodes(path)
        if isinstance(node, ast.Call | ast.Subscript)
        for found in re.findall(r"environ(?:\.get\(|\[)'(\w+)'", ast.unparse(node))
    }
    assert read - used - FOREIGN_VARIABLES == set(), "give it a name that begins with ARAGORA_"
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE))
    assert documented == used, "docs/configuration.md has a row for each variable, and for no other"


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", [path for path in SOURCES if "libs/" in name_of(path)], ids=name_of)
def test_what_a_library_offers_is_explained(path: Path):
    tree = tree_of(path)
    silent = [] if ast.get_docstring(tree) else ["the module itself"]
    silent += [node.name for node in public(tree.body) if not ast.get_docstring(node)]
    assert silent == []


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name_of)
def test_names_say_what_a_thing_is(path: Path):
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    defined = [path.stem, *(node.name for node in nodes(path) if isinstance(node, kinds))]
    vague = [
        name
        for name in defined
        if name == "process" or SHUNNED_NAMES & set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))
    ]
    assert vague == [], "say what it does, or for whom"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_wait_for_a_condition_and_never_sleep(path: Path):
    sleeps = [
        node.lineno
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and called(node).rsplit(".", 1)[-1] == "sleep"
        and ast.unparse(node.args[0]) != "0"
    ]
    assert not sleeps or name_of(path) in SLEEP_ALLOWED, "use servers.eventually"


@pytest.mark.parametrize("path", [path for path in TESTS if path.name.startswith("test_")], ids=name_of)
def test_a_case_has_the_same_name_in_every_process(path: Path):
    drawn = re.compile(r"\b(new_id|uuid\d?|token_\w+|urandom)\(")
    texts = [ast.unparse(node) for node in nodes(path) if called(node) == "pytest.mark.parametrize"]
    unnamed = [text for text in texts if drawn.search(text) and " ids=" not in text]
    assert unnamed == [], "side by side, each process would collect another test"


@pytest.mark.parametrize("path", [path for path in TESTS if path.name.startswith("test_")], ids=name_of)
def test_a_random_test_says_its_seed(path: Path):
    draws = [node for node in nodes(path) if called(node) == "random.Random"]
    printed = any(called(node) == "print" and "seed" in ast.unparse(node) for node in nodes(path))
    assert not draws or printed, 'print(f"seed {seed}"), so that a failure can be replayed'


def test_the_root_folder_holds_what_the_design_shows():
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    assert {path.name for path in ROOT.iterdir()} - ROOT_FOLDER - ignored == set()


def test_every_rule_switched_off_has_a_reason():
    section = (ROOT / "pyproject.toml").read_text().partition("ignore = [\n")[2].partition("\n]")[0]
    assert [line for line in section.splitlines() if '"' in line and "#" not in line] == []


def test_every_decision_can_be_judged_later():
    decisions = sorted(ROOT.glob("docs/decisions/*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        parts = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert parts == ["Context", "Decision", "Evidence", "Consequences", "Revisit when"], path.name


@pytest.mark.parametrize("package", [*LIBS, *SERVICES], ids=name_of)
def test_every_library_and_service_introduces_itself(package: Path):
    home = ROOT.joinpath(*package.relative_to(ROOT).parts[:2])
    assert (home / "README.md").is_file()


def test_every_link_leads_somewhere():
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("libs/*/*.md"),
        *ROOT.glob("services/*/*.md"),
        *ROOT.glob("deploy/*/*.md"),
    ]
    assert len(pages) > 10
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not re.match(r"\w+:", link):
                assert (page.parent / link).exists(), f"{name_of(page)} links to {link}"
