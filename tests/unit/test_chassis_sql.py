import pytest

from aragora.chassis import sql


def test_a_query_is_an_attribute():
    queries = sql.Queries("q.sql", "-- about this file\n\n-- name: one\nSELECT 1\n\n-- name: two\nSELECT 2 -- two\n")
    assert queries.one == "SELECT 1"
    assert queries.two == "SELECT 2 -- two"
    assert [name for name, _ in queries] == ["one", "two"]


def test_an_unknown_name_is_an_attribute_error_that_names_the_file():
    with pytest.raises(AttributeError, match=r"q\.sql has no query 'three'"):
        _ = sql.Queries("q.sql", "-- name: one\nSELECT 1").three


@pytest.mark.parametrize(
    "text", ["-- name: one\nSELECT 1\n-- name: one\nSELECT 2", "-- name: one\n", "-- name: no name\nSELECT 1"]
)
def test_doubles_empty_sections_and_bad_names_are_refused(text):
    with pytest.raises(ValueError, match=r"q\.sql"):
        sql.Queries("q.sql", text)


def test_the_chassis_carries_its_queries():
    assert "ON CONFLICT" in sql.load("aragora.chassis").record_seen
