"""What `headrace demo` asks of each domain, with inputs that the project carries."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from cli.call import nlp, recommendation, speech, speech_stream, vision
from cli.call.reply import Reply
from cli.call.session import Session

_INPUTS: Final = Path(__file__).parent / "demo_inputs"
PAGE: Final = _INPUTS / "page.png"
TALK: Final = _INPUTS / "speech.flac"
PHOTO: Final = Path(__file__).parents[1] / "engines" / "zoo" / "fixtures" / "temple.jpg"

_ALIKE: Final = ("A man plays the guitar.", "Somebody is making music.", "The harbour freezes over in winter.")
_QUERY: Final = "How do I get my money back?"
_DOCUMENTS: Final = (
    "Our shop is open from nine to five.",
    "Refunds are paid within five days of a return.",
    "We ship to every country in Europe.",
)
_REVIEWS: Final = (
    "The fabric is soft and it fits me perfectly, I wear it all the time.",
    "Poor quality: it fell apart after one wash, and I sent it back.",
)
#: Of MovieLens: a user, and three films that somebody else liked.
_USER: Final = "196"
_LIKED: Final = ("50", "172", "181")


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `question`: what it asks, for people; `run` makes it and gives its answer, or raises HeadraceError."""

    rpc: str
    question: str
    run: Callable[[Session, Console], Reply]

    @property
    def domain(self) -> str:
        """The part of the rpc's name before its dot."""
        return self.rpc.partition(".")[0]


def _classify(session: Session, _console: Console) -> Reply:
    return vision.classified(
        [Path(PHOTO.name)], session.client.vision.classify(PHOTO, top_k=3, metadata=session.metadata)
    )


def _read_text(session: Session, _console: Console) -> Reply:
    return vision.read([Path(PAGE.name)], session.client.vision.read_text(PAGE, metadata=session.metadata))


def _embed(session: Session, _console: Console) -> Reply:
    return nlp.embedded(_ALIKE, session.client.nlp.embed(_ALIKE, metadata=session.metadata))


def _rerank(session: Session, _console: Console) -> Reply:
    ranked = session.client.nlp.rerank(_QUERY, _DOCUMENTS, metadata=session.metadata)
    return nlp.reranked(_QUERY, _DOCUMENTS, ranked)


def _sentiment(session: Session, _console: Console) -> Reply:
    return nlp.classified(_REVIEWS, session.client.nlp.classify(_REVIEWS, metadata=session.metadata))


def _recommend(session: Session, _console: Console) -> Reply:
    items = session.client.recommendation.recommend(
        user_id=_USER, page_size=5, exclude_seen=True, metadata=session.metadata
    )
    return recommendation.recommended(f"for user {_USER}", items)


def _for_history(session: Session, _console: Console) -> Reply:
    items = session.client.recommendation.recommend(
        history=_LIKED, page_size=5, exclude_seen=True, metadata=session.metadata
    )
    return recommendation.recommended("for somebody new, by three films", items)


def _recognize(session: Session, _console: Console) -> Reply:
    return speech.recognized(Path(TALK.name), session.client.speech.recognize(TALK, metadata=session.metadata))


def _stream(session: Session, console: Console) -> Reply:
    plan = speech_stream.Plan(speech_stream.load(TALK))
    return speech_stream.replied(Path(TALK.name), plan, speech_stream.converse(session, plan, console))


STEPS: Final = (
    Step("vision.classify", "What is in this photograph?", _classify),
    Step("vision.read_text", "What does this page say?", _read_text),
    Step("nlp.embed", "Which of these sentences mean the same?", _embed),
    Step("nlp.rerank", "Which document answers the question?", _rerank),
    Step("nlp.classify", "Are these customers content?", _sentiment),
    Step("recommendation.recommend", "What should this user see next?", _recommend),
    Step("recommendation.recommend", "And somebody who was never seen before?", _for_history),
    Step("speech.recognize", "What is said in this recording?", _recognize),
    Step("speech.stream", "And live, while it is being said?", _stream),
)
