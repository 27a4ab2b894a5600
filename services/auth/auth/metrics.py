"""What auth counts about itself (docs/observability.md). What it says on the bus is counted by those events."""

from prometheus_client import Counter

sign_ins = Counter("auth_sign_ins_total", "Passwords that were tried, by what came of it", ["outcome"])
refresh_reused = Counter("auth_refresh_reused_total", "Refresh tokens that were used a second time")
key_questions = Counter("auth_key_questions_total", "Questions whose API key it is", ["outcome"])

for _counter, _outcomes in ((sign_ins, ("succeeded", "refused", "locked")), (key_questions, ("answered", "failed"))):
    for _outcome in _outcomes:
        _counter.labels(_outcome)
