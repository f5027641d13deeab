"""The career assistant's tools, on any framework or none.

    from undrift import Undrift
    from undrift.assistant import CareerAssistant, ToolRetry

    assistant = CareerAssistant(Undrift.from_env())
    answer = assistant.add_project_to_experience(
        user_id, experience_id=experience_id, project={"title": "Billing"}
    )
    if isinstance(answer, ToolRetry):
        return answer.message, answer.candidates

The owner comes from the run's context, never from the model's arguments. A reference that is stale
is answered with a `ToolRetry` after the owner's vectors were healed; nothing is raised for what the
model can put right.

A write is these steps, the first five in one transaction:

1. lock the owner's row and read its document: `undrift.sources.editing`
2. draft: see the document as entities, find the place, change it: `draft`, `naming`, `places`
3. validate: the arguments make sense, and the changed document renders: `arguments`, `draft`
4. write the document back: `undrift.sources.editing`
5. commit: likewise
6. sync the owner under the guard, but not in a test environment: `undrift.Undrift.sync`
7. answer: saved, the vector written or pending; or what 2 or 3 refused: `answers`, `career`
"""

from undrift.assistant.answers import Experience, ToolDone, ToolRetry
from undrift.assistant.career import CareerAssistant

__all__ = ["CareerAssistant", "Experience", "ToolDone", "ToolRetry"]
