"""Decide whether a challenger takes the champion's place; pure, it moves nothing itself.

    records  → assignment → gates → verdict → rollout → journal
    what the   which of      e-processes,  worst     state machine,  written before
    router     them carry    one a gate    of all    actions as      anything is done
    saw        evidence                              values

No clock, no network, no files but the journal's. Who observes and acts: fettle/rollout/supervisor.
"""
