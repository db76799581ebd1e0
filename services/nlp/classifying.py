"""Labels for texts: a classifier's own, from text or from another model's embeddings, or the caller's (zero-shot)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engines.work import Work
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.models import LoadedModel, ModelHost
from services.nlp import transforms
from services.nlp.sections import classify_of, embed_of, manifest_of, text_of
from services.nlp.texts import Read, TextCall, TextRunner, stacked
from services.nlp.transforms import Floats

#: One score a label.
Scores = Floats
Classified = tuple[LoadedModel, list[Scores | ServiceError]]


@dataclass(frozen=True, slots=True)
class Classifier:
    """Scores labels. What fails a text alone comes back in its place; what fails the call is raised."""

    host: ModelHost
    runner: TextRunner

    async def own(self, name: str, texts: Sequence[str], call: Call) -> Classified:
        """The labels of the model called `name`, "" being the default classifier."""
        model = self.host.resolve(name, "classify")
        classify, encoder = classify_of(model), text_of(model).encoder
        if encoder:
            found = await self._embedded(model, encoder, texts, call)
        else:
            found = await self.runner.run(TextCall(model, call, texts, classify.output))
        return model, _scored(found, lambda rows: transforms.activated(rows, classify.activation))

    async def zero_shot(self, name: str, texts: Sequence[str], labels: Sequence[str], call: Call) -> Classified:
        """The caller's labels, by likeness of embeddings; `name`: an embedder, "" being the default for this."""
        model = self.host.resolve(name, "embed", role="zero_shot")
        how = manifest_of(model).zero_shot
        asked = [how.template.replace("{}", label) for label in labels]
        found = await self.runner.run(TextCall(model, call, [*texts, *asked], embed_of(model).output))
        for result in found[len(texts) :]:
            if isinstance(result, ServiceError):
                raise result
        vectors = transforms.unit(stacked([result for result in found[len(texts) :] if isinstance(result, Read)]))

        def score(rows: Floats) -> Floats:
            return transforms.zero_shot(transforms.unit(rows), vectors, how.temperature)

        return model, _scored(found[: len(texts)], score)

    async def _embedded(
        self, model: LoadedModel, encoder_name: str, texts: Sequence[str], call: Call
    ) -> list[Read | ServiceError]:
        """The raw scores of a classifier that reads another model's embeddings."""
        try:
            encoder = self.host.resolve(encoder_name, "embed")
        except ServiceError as error:
            problem = f"its encoder {errors.quote(encoder_name)} cannot be used: {error.message}"
            raise errors.model_unavailable(model.name, problem) from error
        found = await self.runner.run(TextCall(encoder, call, texts, embed_of(encoder).output))
        places = [place for place, result in enumerate(found) if isinstance(result, Read)]
        read = [result for result in found if isinstance(result, Read)]
        if not read:
            return found
        rows = transforms.unit(stacked(read))
        spec = model.signature.inputs[0]
        if spec.shape[1] != rows.shape[1]:
            problem = f"it reads {spec.shape[1]} numbers, its encoder {encoder.name} gives {rows.shape[1]}"
            raise errors.model_unavailable(model.name, problem)
        outcome = await self.host.infer(model, Work({spec.name: rows}, len(rows), call.deadline, call.trace))
        call.record(model.name, model.version, [outcome])
        scores = outcome.outputs[classify_of(model).output]
        for row, place in enumerate(places):
            found[place] = Read(scores[row], read[row].token_count)
        return found


def _scored(found: list[Read | ServiceError], score: Callable[[Floats], Floats]) -> list[Scores | ServiceError]:
    """Raw values to scores, all texts at once; errors stay in their places."""
    read = [result for result in found if isinstance(result, Read)]
    rows = iter(score(stacked(read)) if read else ())
    return [result if isinstance(result, ServiceError) else next(rows) for result in found]
