"""Tools of the notebook: what a description may say, and what it becomes in the sandbox."""

import inspect
import socket
import threading

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kernels.frames import Call, Done, FrameBudget, FrameReader, encode
from actors.kernels.sandboxed.channel import HEADER, Channel, Interrupts, ToolError, pack_call
from actors.kernels.sandboxed.serve import name_of
from actors.kernels.sandboxed.toolclient import NotebookTools
from actors.kernels.tool_specs import ToolParameter, ToolSpec, check_tools

QUERY = ToolParameter(name="query", annotation="str")
LIMIT = ToolParameter(name="limit", required=False, default=3)
SITE = ToolParameter(name="site", annotation="str", required=False, default="", keyword_only=True)
SEARCH = ToolSpec(
    name="search", doc="Look it up.", parameters=(QUERY, LIMIT, SITE), returns="list[str]"
)
TOKENS = ToolSpec(name="context.tokens", doc="How many.", returns="int", is_property=True)
DROP = ToolSpec(name="context.drop", doc="Drop one.", parameters=(QUERY,))


@pytest.fixture
def host():
    """The host's end of a channel, and the namespace that has the tools."""
    ours, theirs = socket.socketpair()
    namespace = {}
    with ours, theirs:
        tools = NotebookTools(Channel(theirs, Interrupts()), namespace)
        tools.bind([t.wire() for t in (SEARCH, TOKENS, DROP)])
        yield ours, namespace


@pytest.mark.parametrize(
    "arguments", [([0] * 20_000,), tuple(range(300)), ([[[]] * 5000] * 4,), ({"a": [0] * 17_000},)]
)
def test_what_the_host_would_end_the_kernel_for_is_an_error_in_the_cell(arguments):
    with pytest.raises((TypeError, ValueError), match="at most"):
        pack_call(1, "search", arguments, {})


@settings(max_examples=20)
@given(st.lists(st.recursive(st.none(), lambda v: st.lists(v, max_size=3)), max_size=4))
def test_what_can_be_called_can_be_read(arguments):
    body, _ = pack_call(1, "search", tuple(arguments), {})

    frame = HEADER.pack(len(body)) + body
    assert FrameReader(FrameBudget()).feed(frame) == [Call(1, "search", tuple(arguments), {})]


def answer(host, reply):
    """Answer one call in the background; what was asked is in the list afterwards."""
    asked = []

    def serve():
        length = int.from_bytes(host.recv(4, socket.MSG_WAITALL), "big")
        asked.append(msgpack.unpackb(host.recv(length, socket.MSG_WAITALL)))
        body = msgpack.packb(reply)
        host.sendall(len(body).to_bytes(4, "big") + body)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, asked


@pytest.mark.parametrize(
    "name",
    [
        *("", "a b", "class", "a.b.c", "a.", ".a", "1a", "a.def", "\ud800", "a" * 201),
        *(
            "__builtins__",
            "__slots__",
            "a.__slots__",
            "a.__class__",
            "a.__init__",
            "_",
            "__",
            "___",
        ),
        *("ｓearch", "ToolError", "get_ipython", "In", "Out", "exit", "print", "open.it"),
    ],
)
def test_a_tool_needs_a_name_that_python_and_the_notebook_leave_free(name):
    with pytest.raises(ValueError, match="must be called"):
        ToolSpec(name=name, doc="")


@pytest.mark.parametrize("name", ["a.list", "a.print", "_a", "a._", "a.__b", "time.now"])
def test_other_names_are_free(name):
    assert ToolSpec(name=name, doc="").name == name


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("search", "search"), "both be called 'search'"),
        (("search", "search.web"), "'search' and 'search.web'"),
        (("notepad.read", "notepad"), "'notepad.read' and 'notepad'"),
        (("a.b", "a.b"), "both be called 'a.b'"),
    ],
)
def test_no_tool_shadows_another(names, problem):
    with pytest.raises(ValueError, match=problem):
        check_tools([ToolSpec(name=name, doc="") for name in names])


def test_tools_of_different_names_and_of_one_object_go_together():
    check_tools([ToolSpec(name=name, doc="") for name in ("a", "b.a", "b.c", "c")])


def test_only_a_member_can_be_a_property():
    with pytest.raises(ValueError, match="property"):
        ToolSpec(name="tokens", doc="", is_property=True)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ((LIMIT, QUERY), "in this order"),
        ((SITE, QUERY), "in this order"),
        ((SITE, LIMIT), "in this order"),
        ((QUERY, QUERY), "two parameters of one name"),
    ],
)
def test_parameters_come_in_an_order_that_python_knows(parameters, problem):
    with pytest.raises(ValueError, match=problem):
        ToolSpec(name="search", doc="", parameters=parameters)


def test_the_signature_in_the_notebook_is_the_one_of_the_system_prompt(host):
    _, namespace = host

    shown = f"search{inspect.signature(namespace['search'])}"

    assert (
        shown == SEARCH.signature == ("search(query: str, limit=3, *, site: str = '') -> list[str]")
    )
    assert inspect.getdoc(namespace["search"]) == "Look it up."
    assert TOKENS.signature == "context.tokens: int"


def test_members_are_methods_and_properties_of_one_object(host):
    _, namespace = host
    context = namespace["context"]

    assert inspect.getdoc(type(context).tokens) == "How many."
    assert str(inspect.signature(context.drop)) == "(query: str)"
    with pytest.raises(AttributeError):
        context.tokens = 3
    with pytest.raises(AttributeError):
        context.other = 3


def test_wrong_arguments_send_nothing(host):
    end, namespace = host
    search = namespace["search"]

    for arguments, keywords in [((), {}), (("a", 1, 2), {}), (("a",), {"query": "b"})]:
        with pytest.raises(TypeError):
            search(*arguments, **keywords)

    end.setblocking(False)
    with pytest.raises(BlockingIOError):
        end.recv(1)


def test_a_call_carries_its_arguments_as_given(host):
    end, namespace = host
    thread, asked = answer(end, ["ret", 1, ["found"]])

    assert namespace["search"]("a", site="b") == ["found"]

    thread.join(5)
    assert asked == [["call", 1, "search", ["a"], {"site": "b"}]]


def test_a_property_is_read_on_the_host(host):
    end, namespace = host
    thread, asked = answer(end, ["ret", 1, 42])

    assert namespace["context"].tokens == 42

    thread.join(5)
    assert asked == [["call", 1, "context.tokens", [], {}]]


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("KeyError", KeyError), ("SystemExit", ToolError), ("ToolError", ToolError)],
)
def test_only_usual_exceptions_arrive_as_themselves(host, kind, raised):
    end, namespace = host
    thread, _ = answer(end, ["err", 1, kind, "no"])

    with pytest.raises(raised, match="no"):
        namespace["context"].drop("a")

    thread.join(5)


LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.just("\ud800")
    | st.binary(max_size=5)
    | st.just(object())
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=3))
)
ARGUMENT = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.text(max_size=3) | st.integers() | st.tuples(st.none()) | st.none(), inner
        )
        | st.frozensets(st.integers(), max_size=2)
    ),
    max_leaves=8,
)


@given(ARGUMENT)
def test_whatever_a_cell_passes_to_a_tool_is_refused_inside_or_taken_by_the_host(value):
    try:
        body, _ = pack_call(1, "search", (value,), {"key": value})
    except (TypeError, ValueError):
        return

    (message,) = FrameReader(FrameBudget()).feed(HEADER.pack(len(body)) + body)

    assert isinstance(message, Call)


def odd_metaclass(answer):
    return type("Odd", (type,), {"__name__": property(lambda cls: answer)})


@pytest.mark.parametrize(
    "made",
    [
        type("E" * 5000, (Exception,), {}),
        type("", (Exception,), {}),
        odd_metaclass(None)("Error", (Exception,), {}),
        odd_metaclass(["E"] * 1000)("Error", (Exception,), {}),
        type("Ünicode😀", (Exception,), {}),
    ],
)
def test_the_name_of_any_error_is_one_that_the_host_takes(made):
    name = name_of(made())

    (message,) = FrameReader(FrameBudget()).feed(encode(["done", 1, "error", "", 0, name, 1]))

    assert message == Done(1, True, "", 0, name, 1)
    assert type.__dict__["__name__"].__get__(made).startswith(name)


def test_a_cell_that_calls_with_too_many_values_in_all_is_told_so(host):
    connection, namespace = host
    for number in range(1, 13):
        thread, _ = answer(connection, ["ret", number, None])
        namespace["search"]([[]] * 8000)
        thread.join()

    with pytest.raises(RuntimeError, match="200000 values in one cell"):
        namespace["search"]([[]] * 8000)
