"""What may be fetched, when it is tried again, and how long texts are cut: rules without I/O."""

import asyncio
import contextlib
import socket
import time
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from actors.tools.excerpts import TextMemory, excerpt
from actors.tools.web.retry import LONGEST_WAIT_S, Pace, backoff, retry_after
from actors.tools.web.rules import (
    NotPublicError,
    PageRules,
    host_of,
    is_public,
    parse_url,
    public_socket,
    redirected,
    within,
)

SECOND_TO_THE_EPOCH = 1_700_000_000.0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_addresses_of_this_machine_and_of_private_networks_are_not_public(address: str) -> None:
    assert not is_public(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(NotPublicError, match="private, loopback or link-local"):
        public_socket((family, socket.SOCK_STREAM, 6, "", (address, 80)))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    public_socket((family, socket.SOCK_STREAM, 6, "", (address, 80))).close()


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "ftp://example.org/x",
        "gopher://x",
        "http://",
        "/local",
        "javascript:1",
        "http://user:secret@example.org/",
        "http://[::1",
        "",
        "http://" + "a" * 301,
        "https://example.org/" + "x" * 8192,
    ],
)
def test_only_plain_web_addresses_are_taken(text: object) -> None:
    with pytest.raises(
        ValueError, match=r"expected an address|is not an address|is refused|has 8212 char"
    ):
        parse_url(text)


def test_an_address_that_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="an address must be text, got NoneType"):
        parse_url(None)


FOREIGN = "".join(chr(0x4E00 + n) for n in range(8000))
HOSTILE = {
    "marks": "http://a" + "\u0301\u0327" * 500_000,
    "foreign host": f"http://{FOREIGN}.org/",
    "foreign host behind a line break": f"http:/\n/{FOREIGN}.org/",
    "foreign host behind a tab": f"\thttp:\t//\t{FOREIGN}.org/",
    "foreign user": f"http://{FOREIGN}@example.org/",
    "foreign zone": f"http://[fe80::1%25{FOREIGN}]/",
    "no scheme": f"//{FOREIGN}",
    "no host": f"http:////{FOREIGN}",
    "dots": "http://example.org/" + "../" * 2700,
    "number": "http://example.org:" + "9" * 8000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_address_takes_longer_than_its_length(text: str) -> None:
    begin = time.process_time()
    for read in (parse_url, partial(redirected, URL("http://example.org/a")), host_of):
        with contextlib.suppress(ValueError):
            read(text)
    assert time.process_time() - begin < 0.15


@given(
    st.text(max_size=40)
    | st.builds("{}://{}/{}".format, st.sampled_from(["http", "ftp", "HTTP"]), st.text(), st.text())
)
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    assert isinstance(host_of(text), str)
    for read in (parse_url, partial(redirected, URL("http://example.org/a"))):
        try:
            url = read(text)
        except ValueError:
            continue
        assert url.scheme in ("http", "https")
        assert url.raw_host
        assert url.user is None


def test_a_redirect_may_be_told_in_part() -> None:
    page = URL("https://example.org/a/b?c")
    assert str(redirected(page, "../d#e")) == "https://example.org/d"
    assert str(redirected(page, "//other.org/x")) == "https://other.org/x"
    for location in ("ftp://example.org/", "http://u:p@example.org/", "http://[::1"):
        with pytest.raises(ValueError, match=r"expected an addr|is refused|is not an addr"):
            redirected(page, location)


def test_domains_cover_their_subdomains_and_nothing_that_only_ends_like_them() -> None:
    assert within("en.wikipedia.org", ["wikipedia.org"])
    assert within("wikipedia.org", [".Wikipedia.org"])
    assert not within("notwikipedia.org", ["wikipedia.org"])
    assert not within("wikipedia.org.evil.com", ["wikipedia.org"])


def test_blocked_domains_go_before_allowed_ones() -> None:
    rules = PageRules(allowed=("*",), blocked=("huggingface.co",))

    rules.check(URL("https://example.org/x"))
    for host in ("huggingface.co", "datasets.huggingface.co", "HUGGINGFACE.CO."):
        with pytest.raises(PermissionError, match=r"huggingface\.co is blocked"):
            rules.check(URL(f"https://{host}/datasets"))


def test_a_domain_that_is_not_listed_is_refused_with_the_list() -> None:
    rules = PageRules(allowed=("wikipedia.org", "arxiv.org"))
    with pytest.raises(PermissionError, match=r"example\.org .* wikipedia\.org, arxiv\.org"):
        rules.check(URL("https://example.org/"))


def test_only_a_domain_listed_by_name_may_be_private() -> None:
    rules = PageRules(allowed=("wiki.local", "*"))
    assert rules.is_trusted(URL("http://wiki.local/"))
    assert not rules.is_trusted(URL("http://other.local/"))
    assert not rules.is_trusted(URL("http://sub.wiki.local/"))


def test_pauses_double_with_jitter_up_to_a_limit() -> None:
    for attempt, expected in ((1, 0.5), (2, 1.0), (3, 2.0)):
        pauses = [backoff(attempt, first_s=0.5) for _ in range(200)]
        assert expected * 0.5 <= min(pauses) < max(pauses) <= expected * 1.5
    assert backoff(40, first_s=0.5) <= LONGEST_WAIT_S * 1.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("-1", 0.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        (None, None),
        ("nan", 0.0),
        ("Mon, 32 Jan 2020 99:00:00 GMT", None),
        ("\ud800" * 8000, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=SECOND_TO_THE_EPOCH) == seconds


def test_requests_to_one_host_keep_the_pace_and_hosts_do_not_wait_for_each_other() -> None:
    async def turns() -> float:
        pace = Pace(50.0)
        begin = time.monotonic()
        await asyncio.gather(*(pace.turn("a") for _ in range(6)), pace.turn("b"))
        return time.monotonic() - begin

    assert 0.1 <= asyncio.run(turns()) < 5


def test_hosts_whose_turn_is_over_are_forgotten() -> None:
    async def turns() -> int:
        pace = Pace(1e6)
        for number in range(5000):
            await pace.turn(f"host{number}")
        return len(pace._locks) + len(pace._next)

    assert asyncio.run(turns()) <= 2 * 1001


def test_a_request_that_is_given_up_leaves_no_gap() -> None:
    async def turns() -> float:
        pace = Pace(20.0)
        await pace.turn("a")
        waiting = [asyncio.ensure_future(pace.turn("a")) for _ in range(100)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        begin = time.monotonic()
        await pace.turn("a")
        return time.monotonic() - begin

    assert asyncio.run(turns()) < 2


def test_a_long_text_is_shown_in_parts_that_join_without_gap() -> None:
    text = "".join(chr(97 + index % 26) for index in range(25))

    first = excerpt(text, 0, 10)
    assert first == f"{text[:10]}\n[characters 0 to 10 of 25; go on at start=10]"
    assert excerpt(text, 10, 10).startswith(text[10:20])
    assert excerpt(text, 20, 10) == text[20:]
    assert excerpt(text, 0, 10, most=3).startswith(f"{text[:3]}\n[characters 0 to 3 of 25")
    assert excerpt(text, 0, 10, most=99) == first
    assert excerpt("", 0, 10) == ""


@pytest.mark.parametrize(
    ("start", "most", "message"),
    [
        (25, None, "only 25 characters"),
        (-1, None, "start must be a whole number of at least 0, got -1"),
        ("x", None, "start must be"),
        (0, 0, "max_characters must be a whole number of at least 1"),
        (0, True, "max_characters must be"),
    ],
)
def test_a_part_that_does_not_exist_is_named(start: object, most: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        excerpt("x" * 25, start, 10, most=most)


def test_the_memory_of_texts_forgets_what_was_not_used_for_longest() -> None:
    memory = TextMemory(10)
    memory.put("a", "1234")
    memory.put("b", "1234")
    assert memory.get("a") == "1234"
    memory.put("c", "1234")

    assert memory.get("b") is None
    assert (memory.get("a"), memory.get("c")) == ("1234", "1234")
    for number in range(100):
        memory.put(f"empty {number}", "")
    assert len(memory._texts) == 1
    memory.put("big", "x" * 11)
    assert memory.get("big") is None
