"""Search over recipes: anytime, bounded by evaluations, resumable after kill -9.

A candidate is a recipe, the list of steps that params.yaml could hold; its identity is that list.
This room knows no technique by name and no torch: it takes callables, values and a clock.

    trial                     what a move, a result and a trial are
    search_loop               which recipe to evaluate next, and when to stop
    search_clock, moves_in_time   what is left of the time, and which move fits it
    search_result             what a search came to
    bracketing                which moves are open: none behind a trial that failed
    hypervolume_improvement   the same with two aims (EHVI)
    surrogate_model           what a recipe will probably lose, learnt from the trials so far
    journaled_evaluator       the evaluator behind its journal
    trial_journal             one fsynced line an evaluation
    pareto_front              which trials are beaten by no other

The plan: NetAdapt's progressive shrinking (Yang et al. 2018, arXiv:1804.03230: short recovery at
each step, every step a model on the front), steered by expected improvement (Mockus 1975; per cost
as in Snoek et al. 2012, arXiv:1206.2944): the long recoveries go to the trials that repay them.
"""
