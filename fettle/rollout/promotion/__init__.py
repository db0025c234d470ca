"""Promotion decision: does the challenger take the champion's place? Pure, it moves nothing.

    records  → assignment → gates → verdict → rollout → journal
    what the   which of      e-processes,  worst     state machine,  written before
    router     them carry    one a gate    of all    actions as      anything is done
    saw        evidence                              values

No clock, no network, no files but the journal's. Who observes and acts: fettle/rollout/supervisor.
"""
