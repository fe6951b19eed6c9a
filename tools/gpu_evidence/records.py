"""The records of a step: a line of JSON each."""

import json


def lines(path):
    """All of them, as far as the step came."""
    records = []
    for line in path.read_text().split("\n") if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # nothing behind the last line, or the last line of a step that was stopped
            pass
    return records
