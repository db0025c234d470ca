"""Rollout: a canary that is promoted or rolled back by evidence (docs/canary.md).

promotion/         evidence to verdict to state, all pure: e-processes, gates, journal
supervisor/        observe, decide, write down, act; a watchdog; late labels; shadow traffic
router/            nginx in front of two model servers, and its access log
"""
