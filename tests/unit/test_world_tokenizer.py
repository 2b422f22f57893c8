from common.chat import SPECIAL_TOKENS
from launch.data.world.names import names
from launch.data.world.tokenizer import VOCABULARY, train_tokenizer
from launch.data.world.traces import traces


def test_a_name_is_two_tokens_wherever_it_stands_and_tags_are_one() -> None:
    tokenizer = train_tokenizer(seed=0)

    assert len(tokenizer) == VOCABULARY
    for tag in SPECIAL_TOKENS:
        assert len(tokenizer.encode(tag)) == 1
    for pool in ("train", "heldout"):
        for kind in ("person", "book", "town"):
            assert {len(tokenizer.encode(name)) for name in names(kind, pool)} == {2}
    name = tokenizer.encode("Anna Keller")
    for text in ('search("Anna Keller born"))', "<output>Anna Keller, poet", "by Anna Keller, p"):
        assert str(name)[1:-1] in str(tokenizer.encode(text))
    for trace in traces(1, 20):
        for span in trace:
            assert tokenizer.decode(tokenizer.encode(span.text)) == span.text
