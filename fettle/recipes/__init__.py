"""Recipes: run one, search for one, judge what came of it: the engine of stages/compress.py.

recipe_runner              a module through the steps of a recipe
compression_context        what a technique is given, and the network it works on
recovery_training          fine-tuning with distillation after each cut
teacher_answers            what distillation was answered before, in a scratch file
recipe_search              `recipe: auto`: the search, resumed after a kill
recipe_evaluator           a recipe as a trial: what it buys, what it loses
cost_model                 latency, parameters, MACs or bytes of a model as it stands
search/                    which recipe to try next; knows no torch and no technique
run_costs, run_budget      what a run takes, and a run that takes so long
training_probe             how fast this machine trains
input_choice               what the family's record makes of `auto` in the params
search_report, sensitivity_report      what is written down of it
"""
