"""The disk cache gives back what was put in, whole or not at all, and never holds a key."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.tools.web.cache import MAX_SHOWN_BODY, ResponseCache
from actors.tools.web.messages import WebRequest, WebResponse

REQUEST = WebRequest(
    method="POST",
    url="https://api.example.org/search?x=1",
    body=b'{"q": "ada"}',
    headers={"Accept": "application/json"},
    secret_headers={"Authorization": "Bearer key-0123456789"},
)
RESPONSE = WebResponse(status=200, url=REQUEST.url, content_type="text/plain", body=b"hello")


def entry_text(status: str = "200", url: str = '"http://x"', body: str = '"body": "x"') -> str:
    """An entry as a file has it, with parts that may be wrong."""
    return f'{{"response": {{"status": {status}, "url": {url}, "content_type": "", {body}}}}}'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), status=st.integers(200, 404), kind=st.text(max_size=20))
def test_any_answer_comes_back_as_it_was(
    tmp_path: Path, body: bytes, status: int, kind: str
) -> None:
    kind = kind.encode("utf-8", "replace").decode()
    response = WebResponse(status=status, url="https://x.org/é", content_type=kind, body=body)
    cache = ResponseCache(tmp_path)

    cache.store(REQUEST, response)

    assert cache.load(REQUEST) == response


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"url": "https://api.example.org/search?x=2"},
        {"body": b'{"q": "bob"}'},
        {"headers": {"Accept": "text/html"}},
    ],
)
def test_another_request_has_another_entry(tmp_path: Path, change: dict[str, object]) -> None:
    cache = ResponseCache(tmp_path)
    cache.store(REQUEST, RESPONSE)
    assert cache.load(replace(REQUEST, **change)) is None  # type: ignore[arg-type]


def test_the_key_is_no_part_of_the_entry(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    cache.store(REQUEST, RESPONSE)

    other = replace(REQUEST, secret_headers={"Authorization": "Bearer another"})
    assert cache.load(other) == RESPONSE
    assert "key-0123456789" not in cache.path(REQUEST).read_text()
    assert "key-0123456789" not in repr(REQUEST)


def test_an_entry_shows_the_request_and_the_answer(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    cache.store(REQUEST, RESPONSE)

    path = cache.path(REQUEST)
    entry = json.loads(path.read_text())
    assert path.parent == tmp_path / "api.example.org"
    assert entry["request"]["url"] == REQUEST.url
    assert entry["request"]["body"] == '{"q": "ada"}'
    assert entry["response"]["body"] == "hello"
    assert entry["fetched"].endswith("Z")


def test_a_long_request_is_shown_in_part_and_told_apart_by_all_of_it(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    first = replace(REQUEST, body=b"x" * 2 * MAX_SHOWN_BODY + b"1")
    second = replace(REQUEST, body=b"x" * 2 * MAX_SHOWN_BODY + b"2")
    cache.store(first, RESPONSE)

    assert cache.load(second) is None
    assert cache.path(first).stat().st_size < 2 * MAX_SHOWN_BODY
    assert json.loads(cache.path(first).read_text())["request"]["body"].endswith("and 4097 bytes")


@pytest.mark.parametrize("url", ["http://[::1]:80/", f"http://{'a' * 300}.org/", "http://a_b.org/"])
def test_any_host_makes_a_folder_name(tmp_path: Path, url: str) -> None:
    cache = ResponseCache(tmp_path)
    cache.store(replace(REQUEST, url=url), RESPONSE)
    assert cache.load(replace(REQUEST, url=url)) == RESPONSE


def test_readers_and_writers_at_once_see_whole_entries(tmp_path: Path) -> None:
    answers = [replace(RESPONSE, body=bytes([65 + n]) * 100_000) for n in range(4)]

    def work(number: int) -> list[WebResponse | None]:
        cache = ResponseCache(tmp_path)
        seen = []
        for turn in range(25):
            cache.store(REQUEST, answers[(number + turn) % 4])
            seen.append(cache.load(REQUEST))
        return seen

    with ThreadPoolExecutor(8) as threads:
        seen = [found for found_by_one in threads.map(work, range(8)) for found in found_by_one]

    assert len(seen) == 200
    assert all(found in answers for found in seen)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [
        ResponseCache(tmp_path).path(REQUEST).name
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"response": {}}',
        '{"response": null}',
        '{"response": {"status": "x"}}',
        '"\ud800"',
        "[" * 100_000,
        "9" * 5000,
        entry_text(status="1e999"),
        entry_text(status="null"),
        entry_text(status="true"),
        entry_text(url="7"),
        entry_text(body='"body": ["x"]'),
        entry_text(body='"body": null'),
        entry_text(body='"body": "\\ud800"'),
        entry_text(body='"body_base64": "!!"'),
        entry_text(body='"body_base64": 7'),
    ],
)
def test_a_damaged_entry_is_named(tmp_path: Path, text: str) -> None:
    cache = ResponseCache(tmp_path)
    cache.store(REQUEST, RESPONSE)
    cache.path(REQUEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"cache entry '.*\.json' is damaged .*; delete it"):
        cache.load(REQUEST)


def test_an_entry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    ResponseCache(tmp_path).path(REQUEST).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"cache entry '.*\.json' cannot be read: Is a directory"):
        ResponseCache(tmp_path).load(REQUEST)
