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
"""

from undrift.assistant.answers import Experience, ToolDone, ToolRetry
from undrift.assistant.career import CareerAssistant

__all__ = ["CareerAssistant", "Experience", "ToolDone", "ToolRetry"]
