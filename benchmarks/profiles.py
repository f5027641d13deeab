"""A seeded generator of plausible profiles; any owner can be made again alone."""

from __future__ import annotations

import random

TITLES = ("Engineer", "Nurse", "Teacher", "Analyst", "Welder", "Chemist", "Editor", "Surveyor")
COMPANIES = ("Acme", "Northwind", "Globex", "Initech", "Hooli", "Umbrella", "Stark", "Wayne")
WORDS = (
    "planned", "built", "repaired", "measured", "taught", "led", "reviewed", "shipped", "designed",
    "tested", "cleaned", "moved", "wrote", "sold", "bought", "grew", "cut", "mixed", "painted",
    "cooked", "drove", "flew", "sailed", "billing", "ledger", "turbine", "harvest", "clinic",
    "archive", "bridge", "kernel", "market", "garden", "school", "museum", "battery", "antenna",
)  # fmt: skip
SKILLS = ("SQL", "Go", "Python", "First aid", "Welding", "Spanish", "Excel", "Forklift", "Baking")


def profile(owner: int, *, seed: int = 1) -> dict[str, object]:
    """The document of *owner*: ten entities of every default kind, about 200 characters each."""
    rng = random.Random(f"{seed}/{owner}")
    experiences = [_experience(rng, number) for number in range(3)]
    return {
        "experiences": experiences,
        "education": [
            {
                "id": "edu_1",
                "school": f"{rng.choice(COMPANIES)} College {owner}",
                "degree": "BSc",
                "field": sentence(rng, 2),
                "start": "2008",
                "end": "2012",
            }
        ],
        "skills": [
            {"id": f"s_{number}", "name": name, "level": rng.choice(("basic", "good", "expert"))}
            for number, name in enumerate(rng.sample(SKILLS, 2))
        ],
    }


def _experience(rng: random.Random, number: int) -> dict[str, object]:
    experience: dict[str, object] = {
        "id": f"exp_{number}",
        "title": rng.choice(TITLES),
        "company": rng.choice(COMPANIES),
        "start": f"20{10 + number}-0{rng.randint(1, 9)}",
        "end": None if number == 2 else f"20{11 + number}-0{rng.randint(1, 9)}",
        "description": sentence(rng, 24),
    }
    if number < 2:
        update = {
            "id": f"u_{number}",
            "title": sentence(rng, 3),
            "description": sentence(rng, 20),
            "date": "2019-05",
        }
        experience["projects"] = [
            {
                "id": f"p_{number}",
                "title": sentence(rng, 3),
                "description": sentence(rng, 20),
                "technologies": rng.sample(SKILLS, 3),
                "role": "lead",
                "updates": [update],
            }
        ]
    return experience


def sentence(rng: random.Random, words: int) -> str:
    """So many words that were never said."""
    return " ".join(rng.choices(WORDS, k=words)).capitalize()
