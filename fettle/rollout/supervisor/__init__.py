"""Supervisor of a rollout: observe, decide, write down, act; what serves does not hang on it.

    watchdog ──starts, watches──▶ controller ──routes──▶ nginx ──▶ champion, challenger
       └─ engages the kill switch when the controller's lease runs out

nginx and the releases are processes of their own, found again by their files. The controller may
be killed at any point: the journal (fettle/rollout/promotion) says what was decided, and every
action may be repeated. Works without Prefect and MLflow: both are shown what happened, none is
asked.
"""
