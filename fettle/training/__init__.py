"""Training: the one loop behind fine-tuning and behind the recovery training of compression.

training_loop, training_run                  epochs, best weights, resume after a kill
training_plan, learning_rate_schedule        what is learnt from, which layers, how fast
augmentation, class_balance, optimizers      what a step is made of
fine_tuning, linear_probe                    LP-FT: the head first, then all; which of them is kept
learning_rate_search, mirror_test            what is `auto`, asked of the data
weight_averaging                             the mean of the last steps
inference, training_checkpoint               logits of a split; the state on disk
"""
